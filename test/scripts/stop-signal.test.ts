import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { StopSignal } from '../../scripts/stop-signal.ts';

function create() {
  const source = new EventEmitter();
  let now = 0;
  const stop = new StopSignal(source, () => now);
  let forced = 0;
  stop.onSecond(() => {
    forced += 1;
  });
  return {
    stop,
    forced: () => forced,
    receive: (name: string, atMs: number) => {
      now = atMs;
      source.emit(name);
    },
  };
}

test('the first signal asks to stop', async () => {
  const { stop, forced, receive } = create();
  assert.equal(stop.signal.aborted, false);
  receive('SIGINT', 0);
  assert.equal(stop.signal.aborted, true);
  assert.equal(await stop.requested, undefined);
  assert.equal(forced(), 0);
});

test('an echo of the first signal forces nothing', () => {
  const { forced, receive } = create();
  receive('SIGINT', 0);
  receive('SIGINT', 20);
  receive('SIGTERM', 400);
  assert.equal(forced(), 0);
});

test('a later signal forces', () => {
  const { forced, receive } = create();
  receive('SIGTERM', 0);
  receive('SIGINT', 900);
  assert.equal(forced(), 1);
});
