import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { type Child, outputOf, startChild } from '../../scripts/child.ts';
import { until } from '../../scripts/until.ts';
import { isAlive } from '../support/is-alive.ts';

/** Starts a second process, says its id, and waits. */
const FAMILY = `
const { spawn } = require('node:child_process');
const own = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000); process.on("SIGTERM", () => {})']);
console.log(own.pid);
setInterval(() => {}, 1000);
`;
const STUBBORN = `process.on('SIGTERM', () => console.log('no')); console.log('ready'); setInterval(() => {}, 1000);`;

const start = (script: string): Promise<Child> =>
  startChild([process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });

async function startFamily(): Promise<{ child: Child; grandchild: number }> {
  const child = await start(FAMILY);
  const output = outputOf(child);
  return { child, grandchild: Number(await until(() => output.all.endsWith('\n') && output.all, 'its id')) };
}

describe('a child', () => {
  test('tells how it ended and what it wrote', async () => {
    const child = await start('console.log("bye"); process.exitCode = 3');
    const output = outputOf(child);
    assert.deepEqual(await child.closed, { code: 3, signal: null });
    assert.deepEqual(child.exit(), { code: 3, signal: null });
    assert.deepEqual(output, { all: 'bye\n', printed: 'bye\n' });
    assert.deepEqual(await child.stop(), { code: 3, signal: null });
  });

  test('that cannot be started is reported', async () => {
    await assert.rejects(startChild(['no-such-command']), /no-such-command ENOENT/);
    await assert.rejects(startChild([process.execPath], { cwd: '/no/such/folder' }), /ENOENT/);
  });

  test('stops when asked, frozen or not', async () => {
    const child = await start('setInterval(() => {}, 1000)');
    child.signal('SIGSTOP');
    assert.deepEqual(await child.stop(), { code: null, signal: 'SIGTERM' });
  });

  test('that ignores SIGTERM is ended by force', async () => {
    const child = await start(STUBBORN);
    const output = outputOf(child);
    await until(() => output.all.includes('ready'), 'it runs');
    assert.deepEqual(await child.stop(50), { code: null, signal: 'SIGKILL' });
    await child.closed;
    assert.equal(output.all, 'ready\nno\n');
  });

  test('leaves nothing that it has started, although that ignores SIGTERM', async () => {
    const { child, grandchild } = await startFamily();
    await child.stop();
    await until(() => !isAlive(grandchild), 'its own child ends');
  });

  test('leaves nothing when it has ended before it is stopped', async () => {
    const { child, grandchild } = await startFamily();
    child.signal('SIGKILL');
    await child.exited;
    assert.ok(isAlive(grandchild));
    await child.stop();
    await until(() => !isAlive(grandchild), 'its own child ends');
  });
});

describe('a child whose parent is gone', () => {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-test-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** A parent that starts a program, says its id, and then does as `then` says. */
  async function orphan(script: string, then: string) {
    const parent = join(folder, 'parent.ts');
    const module = new URL('../../scripts/child.ts', import.meta.url).href;
    writeFileSync(
      parent,
      `import { startChild } from '${module}';
       const child = await startChild([process.execPath, '-e', ${JSON.stringify(script)}], { stdio: ['ignore', 'pipe', 'inherit'] });
       child.process.stdout.once('data', (text) => { console.log(child.pid, String(text)); ${then} });`,
    );
    const parentProcess = spawn(process.execPath, [parent], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(parentProcess.stdout, 'data')) as [Buffer];
    const [pid = 0, said] = line.toString().trim().split(' ');
    return { parentProcess, pid: Number(pid), said };
  }

  test('ends when the parent is killed', async () => {
    const { parentProcess, pid } = await orphan(`console.log('x'); setInterval(() => {}, 1000)`, '');
    assert.ok(isAlive(pid));
    parentProcess.kill('SIGKILL');
    await until(() => !isAlive(pid), 'the child ends');
  });

  test('ends when it is frozen, or ignores SIGTERM, with all that it has started', async () => {
    const { parentProcess, pid, said } = await orphan(FAMILY, '');
    process.kill(pid, 'SIGSTOP');
    parentProcess.kill('SIGKILL');
    await until(() => !isAlive(pid) && !isAlive(Number(said)), 'both end', { ms: 60_000 });
  });

  test('ends when the parent ends without stopping it', async () => {
    const { parentProcess, pid } = await orphan(`console.log('x'); setInterval(() => {}, 1000)`, 'process.exit(5)');
    const [code] = await once(parentProcess, 'exit');
    assert.equal(code, 5);
    await until(() => !isAlive(pid), 'the child ends');
  });
});
