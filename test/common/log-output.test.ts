import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { openLogOutput } from '../../common/log-output.ts';
import { until } from '../support/until.ts';

const MIB = 1024 * 1024;
const line = (text: string) => `${JSON.stringify({ text })}\n`;

/** A pipe whose reader reads when it is told to. */
function pipe(t: TestContext): { writer: number; read(): string; leave(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'log-'));
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY);
  let left = false;
  const leave = () => {
    if (!left) closeSync(reader);
    left = true;
  };
  t.after(() => {
    leave();
    rmSync(folder, { recursive: true });
  });
  const buffer = Buffer.alloc(MIB);
  return {
    writer,
    leave,
    read() {
      let text = '';
      try {
        for (let n = readSync(reader, buffer); n > 0; n = readSync(reader, buffer))
          text += buffer.toString('utf8', 0, n);
      } catch {
        // It is empty.
      }
      return text;
    },
  };
}

describe('where log lines go', () => {
  it('never waits for a reader that does not read, and drops and counts what is too much', async (t) => {
    const { writer, read } = pipe(t);
    const said: number[] = [];
    const output = openLogOutput(writer, (dropped) => said.push(dropped));
    t.after(() => output.close());
    const long = line('x'.repeat(1000));
    const sent = 4 * MIB;
    for (let bytes = 0; bytes < sent; bytes += long.length) output.write(long);
    assert.ok(output.dropped > 0);
    let text = '';
    await until(() => {
      text += read();
      return said.length > 0;
    }, 'it says how many lines were dropped');
    output.write(line('afterwards'));
    await until(() => {
      text += read();
      return text.includes('afterwards');
    }, 'it goes on');
    const lines = text.trimEnd().split('\n');
    for (const whole of lines) JSON.parse(whole);
    assert.equal(said[0], output.dropped);
    assert.equal(lines.length - 1 + output.dropped, Math.ceil(sent / long.length));
  });

  it('drops lines while the disk is full', async (t) => {
    const full = openSync('/dev/full', 'w');
    const said: number[] = [];
    const output = openLogOutput(full, (dropped) => said.push(dropped));
    t.after(() => output.close());
    for (let i = 0; i < 100; i++) output.write(line('x'.repeat(1000)));
    await until(() => output.dropped === 100, 'all are counted');
  });

  it('goes on when its reader has left', async (t) => {
    const { writer, leave } = pipe(t);
    const output = openLogOutput(writer, () => {});
    leave();
    output.write(line('nobody'));
    await until(() => output.dropped === 1, 'it is counted');
    output.close();
  });

  it('ends without its reader', (t) => {
    const { writer } = pipe(t);
    const output = openLogOutput(writer, () => {});
    for (let i = 0; i < 500; i++) output.write(line('x'.repeat(1000)));
    output.close();
  });
});
