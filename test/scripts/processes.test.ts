import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { freePorts, portProblem } from '../../scripts/ports.ts';
import { ProcessError, type RunningProcess, startProcess, waitUntilReady } from '../../scripts/processes.ts';

const DEADLINE_MS = 10_000;
const SERVER = `
import { createServer } from 'node:http';
console.log('hello');
if (process.env.FAIL) { console.error('no such model'); process.exit(3); }
for (let i = 0; i < Number(process.env.TALKS ?? 0); i++) {
  console.log('loading');
  await new Promise((resolve) => setTimeout(resolve, 100));
}
createServer((_, response) => response.end()).listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
`;

describe('a child process', () => {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-test-'));
  const script = join(folder, 'server.ts');
  writeFileSync(script, SERVER);
  const running: RunningProcess[] = [];
  afterEach(async () => {
    for (const child of running.splice(0)) await child.stop(100);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  async function start(env: Readonly<Record<string, string>> = {}, name = 'server'): Promise<RunningProcess> {
    const [port] = await freePorts(1);
    const child = await startProcess({
      name,
      command: [process.execPath, script],
      env: { ...process.env, PORT: `${port}`, ...env },
      logFolder: folder,
      readyUrl: `http://127.0.0.1:${port}/`,
    });
    running.push(child);
    return child;
  }

  test('is ready when its address answers, logs to a file and stops when asked', async () => {
    const child = await start({}, 'polite');
    await waitUntilReady(child, DEADLINE_MS);
    assert.equal(child.exit(), undefined);
    assert.equal(await child.lastLines(1), 'hello');
    assert.deepEqual(await child.stop(), { code: 0, signal: null });
    assert.deepEqual(child.exit(), { code: 0, signal: null });
  });

  test('that ends before it is ready is reported with its code and last lines', async () => {
    const child = await start({ FAIL: '1' }, 'failing');
    await assert.rejects(waitUntilReady(child, DEADLINE_MS), (error: unknown) => {
      assert.ok(error instanceof ProcessError);
      assert.match(error.message, /failing ended with code 3/);
      assert.match(error.message, /no such model/);
      return true;
    });
  });

  test('that never answers is reported with the address', async () => {
    const child = await start({ PORT: '0' }, 'silent');
    await assert.rejects(waitUntilReady(child, 200), /silent was not ready within 200 ms \(http:\/\/127/);
  });

  test('is waited for as long as it prints something', async () => {
    const child = await start({ TALKS: '25' }, 'talking');
    await waitUntilReady(child, 1500);
  });

  test('is waited for no longer once the waiting is aborted', async () => {
    const child = await start({ PORT: '0' });
    const reason = new Error('stopped');
    await assert.rejects(waitUntilReady(child, DEADLINE_MS, AbortSignal.abort(reason)), reason);
  });

  test('that cannot be started is reported', async () => {
    const spec = {
      name: 'none',
      command: ['no-such-command'],
      env: {},
      logFolder: folder,
      readyUrl: 'http://127.0.0.1:9/',
    };
    await assert.rejects(startProcess(spec), /cannot start none: .*ENOENT/);
  });
});

describe('ports', () => {
  test('that are free can be listened on, and are different', async () => {
    const ports = await freePorts(8);
    assert.equal(new Set(ports).size, 8);
    for (const port of ports) assert.equal(await portProblem('127.0.0.1', port), undefined);
  });

  test('that are taken are named', async () => {
    const { createServer } = await import('node:net');
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    try {
      assert.equal(await portProblem('127.0.0.1', port), `port ${port} of 127.0.0.1 is in use`);
    } finally {
      server.close();
    }
  });
});
