import assert from 'node:assert/strict';
import { globSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { freePorts } from '../../scripts/ports.ts';
import { ROOT } from '../../scripts/processes.ts';
import { theVersion, versions } from '../../scripts/release/versions.ts';
import { runCommand } from '../../scripts/testing/command.ts';
import { type Container, run } from './images/container.ts';
import type { Image } from './images/image.ts';

const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-release-'));
const out = join(folder, 'dist');
const running: Container[] = [];
after(async () => {
  for (const container of running.reverse()) await container.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function succeed(command: string, args: readonly string[], cwd: string): Promise<string> {
  const result = await runCommand(command, args, { cwd, timeoutMs: 200_000 });
  assert.equal(result.code, 0, `${[command, ...args].join(' ')}\n${result.output}`);
  return result.output;
}

test('one version stands everywhere', () => {
  assert.ok(
    Object.keys(versions()).length >= 9,
    'package, lock, plugin, chart twice, and the images of the compose file',
  );
  assert.match(theVersion(), /^\d+\.\d+\.\d+/);
});

test('the release command makes the package', async () => {
  const said = await succeed(process.execPath, ['scripts/release.ts', '--out', out, '--only', 'package'], ROOT);
  const version = theVersion();
  assert.deepEqual(globSync('*', { cwd: out }), [`crystal-kv-${version}.tgz`]);
  assert.match(said, new RegExp(`version ${version}`));
});

test('the package, installed into an empty folder, runs policy service, engine and gateway', async () => {
  const project = join(folder, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "private": true }\n');
  const [archive = ''] = globSync('*.tgz', { cwd: out });
  // the Node that runs the tests is new enough, so that no install script is needed
  const options = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  await succeed('npm', ['install', ...options, join(out, archive)], project);

  const [grpc, metrics, engine, gateway] = (await freePorts(4)) as [number, number, number, number];
  const env = {
    CRYSTALKV_POLICY_SERVICE_PORT: `${grpc}`,
    CRYSTALKV_POLICY_SERVICE_METRICS_PORT: `${metrics}`,
    CRYSTALKV_POLICY_ADDRESS: `127.0.0.1:${grpc}`,
    CRYSTALKV_ENGINE_PORT: `${engine}`,
    CRYSTALKV_GATEWAY_PORT: `${gateway}`,
    CRYSTALKV_GATEWAY_BACKENDS: `["http://127.0.0.1:${engine}"]`,
    PATH: `${join(process.execPath, '..')}:${process.env['PATH']}`,
  };
  const healthcheck = (port: number) => [
    process.execPath,
    '--eval',
    `fetch('http://127.0.0.1:${port}/health').then((it) => process.exit(it.ok ? 0 : 1), () => process.exit(1))`,
  ];
  for (const [name, port] of [
    ['policy-service', metrics],
    ['engine', engine],
    ['gateway', gateway],
  ] as const) {
    const program = join(project, 'node_modules/.bin', `crystal-kv-${name}`);
    const image: Image = {
      ...{ root: project, workdir: '/', env: {}, user: 'root', entrypoint: [], ports: [] },
      cmd: [program],
      healthcheck: healthcheck(port),
    };
    const container = await run(image, { env });
    running.push(container);
    await container.healthy();
  }
  const answer = await fetch(`http://127.0.0.1:${gateway}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'crystal-mini',
      messages: [{ role: 'user', content: 'L3 yew 0 8 : L2 onyx 1 yew : L1 gold yew yew : Q1 yew Q2 gold Q3 onyx' }],
    }),
  });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  assert.match(text, /"finish_reason":"stop"/);
  const page = await fetch(`http://127.0.0.1:${gateway}/ui`);
  assert.match(page.headers.get('content-type') ?? '', /text\/html/, 'the live page is in the package');
  await page.body?.cancel();
  for (const container of running.splice(0).reverse()) assert.equal(await container.stop(), 0, container.output());
});

test('the package holds no test, no source to compile and no key', () => {
  const files = globSync('**/*', { cwd: join(folder, 'project/node_modules/crystal-kv'), exclude: ['node_modules'] });
  assert.ok(files.includes('lib/engine/kernels/kernels.wasm'));
  const strange = files.filter((file) => /\.test\.|\.ts$|^(test|bench|docs)\/|\.env|keys\.json/.test(file));
  assert.deepEqual(strange, []);
});
