import assert from 'node:assert/strict';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ROOT } from '../../scripts/processes.ts';
import { theVersion } from '../../scripts/release/versions.ts';
import { runCommand } from '../../scripts/testing/command.ts';

const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-wheel-'));
after(() => rmSync(folder, { recursive: true, force: true }));

async function succeed(command: string, args: readonly string[]): Promise<string> {
  const result = await runCommand(command, args);
  assert.equal(result.code, 0, `${[command, ...args].join(' ')}\n${result.output}`);
  return result.output;
}

test('the release command makes a wheel, which installs into an empty environment and knows its settings', async () => {
  await succeed(process.execPath, ['scripts/release.ts', '--out', folder, '--only', 'wheel']);
  const wheel = `crystal_kv_vllm-${theVersion()}-py3-none-any.whl`;
  assert.deepEqual(globSync('*', { cwd: folder }), [wheel]);
  const venv = join(folder, 'venv');
  const python = join(venv, 'bin/python');
  if ((await runCommand('uv', ['--version'])).code === 0) {
    await succeed('uv', ['venv', '--quiet', venv]);
    await succeed('uv', ['pip', 'install', '--quiet', '--python', python, join(folder, wheel)]);
  } else {
    await succeed('python3', ['-m', 'venv', venv]);
    await succeed(python, ['-m', 'pip', 'install', '--quiet', join(folder, wheel)]);
  }
  // what needs no vLLM: its entry point, and the client of the policy service
  await succeed(python, [
    '-c',
    'import crystal_kv_vllm, crystal_kv_vllm.settings, crystal_kv_vllm.gen.policy_pb2_grpc',
  ]);
  const settings = await succeed(join(venv, 'bin/crystal-kv-vllm'), ['settings']);
  assert.ok(readFileSync(join(ROOT, 'vllm-plugin/README.md'), 'utf8').includes(settings));
});
