import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { within } from '../../common/time.ts';
import { startChild } from '../../scripts/child.ts';
import { until } from '../support/until.ts';

const PROGRAMS = {
  gateway: (port: number) => ({ CRYSTALKV_GATEWAY_PORT: String(port) }),
  'policy-service': (port: number) => ({
    CRYSTALKV_POLICY_SERVICE_PORT: '0',
    CRYSTALKV_POLICY_SERVICE_METRICS_PORT: String(port),
  }),
  engine: (port: number) => ({ CRYSTALKV_ENGINE_PORT: String(port) }),
};

/** Standard outputs that take nothing: the descriptor for a program. */
const OUTPUTS: Readonly<Record<string, (t: TestContext) => number>> = {
  'on a full disk': () => openSync('/dev/full', 'w'),
  'whose reader does not read': (t) => {
    const { writer } = fullPipe(t);
    return writer;
  },
  'whose reader has left': (t) => {
    const { writer, reader } = fullPipe(t);
    closeSync(reader);
    return writer;
  },
};

function fullPipe(t: TestContext): { writer: number; reader: number } {
  const folder = mkdtempSync(join(tmpdir(), 'log-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const filler = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    for (const space = Buffer.alloc(4096, ' '); ; ) writeSync(filler, space);
  } catch {
    // It is full.
  }
  const writer = openSync(path, constants.O_WRONLY);
  closeSync(filler);
  return { writer, reader };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('a program with standard output', () => {
  for (const [part, environment] of Object.entries(PROGRAMS)) {
    for (const [name, open] of Object.entries(OUTPUTS)) {
      it(`${name} serves and stops: ${part}`, async (t) => {
        const port = await freePort();
        const descriptor = open(t);
        const main = fileURLToPath(new URL(`../../${part}/main.ts`, import.meta.url));
        const child = await startChild([process.execPath, main], {
          env: environment(port),
          stdio: ['ignore', descriptor, 'ignore'],
        });
        t.after(() => child.stop(0));
        closeSync(descriptor);
        const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).text();
        await until(() => get('/health').catch(() => undefined), 'it listens', { ms: 60_000 });
        for (let i = 0; i < 50; i++) await get('/nothing');
        await until(async () => {
          const lost = /^crystalkv_log_lines_dropped_total(?:\{.*\})? (\d+)$/m.exec(await get('/metrics'))?.[1];
          return name === 'whose reader does not read' || Number(lost) > 0;
        }, 'lost lines are counted');
        child.signal('SIGTERM');
        assert.deepEqual(await within(child.exited, 15_000), { code: 0, signal: null });
      });
    }
  }
});
