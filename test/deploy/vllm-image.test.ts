import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { testedVersions } from '../../scripts/compatibility.ts';
import { ROOT } from '../../scripts/processes.ts';
import { runCommand } from '../../scripts/testing/command.ts';
import { loadCompose } from './compose.ts';
import { parseDockerfile } from './images/dockerfile.ts';
import { type Builder, build, inside, pathOf } from './images/image.ts';

const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-vllm-image-'));
chmodSync(folder, 0o755);
after(() => rmSync(folder, { recursive: true, force: true }));
const text = readFileSync(join(ROOT, 'deploy/vllm.Dockerfile'), 'utf8');

/** In place of vLLM's image an empty Python environment: what is tested is that the plugin gets into it. */
const builder: Builder = {
  folder,
  stages: parseDockerfile(text),
  built: new Map(),
  async base(_from, root) {
    const hasUv = (await runCommand('uv', ['--version'])).code === 0;
    const place = join(root, 'usr/local');
    const [command, args] = hasUv ? ['uv', ['venv', '--quiet', '--seed', place]] : ['python3', ['-m', 'venv', place]];
    const made = await runCommand(command as string, args as string[]);
    assert.equal(made.code, 0, made.output);
  },
};

test('both images of vLLM are of a version that the plugin was tested with', () => {
  const onCpu = loadCompose().services['vllm-cpu']?.build?.args ?? {};
  for (const args of [{}, onCpu]) {
    const images = parseDockerfile(text, args).map(({ from }) => from);
    assert.equal(new Set(images).size, 1);
    const version = /:v(\d+\.\d+\.\d+)$/.exec(images[0] ?? '')?.[1];
    assert.ok(testedVersions().includes(version ?? ''), `${images[0]} is none of ${testedVersions().join(', ')}`);
  }
});

test('the steps of deploy/vllm.Dockerfile build the wheel and install it; vLLM starts as a user without rights', async () => {
  const image = await build(builder, '1');
  assert.deepEqual(image.entrypoint, ['crystal-kv-vllm', 'serve']);
  assert.equal(image.user, '10001:10001');
  assert.ok(image.healthcheck.length > 0);
  const program = join(image.root, 'usr/local/bin/crystal-kv-vllm');
  assert.ok(existsSync(program));
  const env = pathOf(image);
  const said = await runCommand(program, ['settings'], { env });
  assert.match(said.output, /CRYSTALKV_POLICY_TOKEN_FILE/);
  // without a model it says how it is used, and does not start
  const [, ...words] = image.entrypoint;
  assert.match((await runCommand(program, words, { env })).output, /usage: crystal-kv-vllm serve MODEL/);
  if (process.getuid?.() === 0) assert.equal(statSync(inside(image, '/models')).uid, 10_001);
});
