import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { backoffMs, jittered, pause, within } from '../../common/time.ts';

const NEVER = new Promise<never>(() => {});
const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;

describe('within', () => {
  it('gives what the promise gives, and leaves no timer', async () => {
    const before = timers();
    assert.equal(await within(Promise.resolve(7), 60_000, 'late'), 7);
    await assert.rejects(within(Promise.reject(new Error('broken')), 60_000), /broken/);
    assert.equal(timers(), before);
  });

  it('gives the other value when it takes too long', async () => {
    assert.equal(await within(NEVER, 1, 'late'), 'late');
    assert.equal(await within(NEVER, 1), undefined);
  });

  it('ignores a rejection that comes too late', async (t) => {
    let unhandled = 0;
    const count = () => (unhandled += 1);
    process.on('unhandledRejection', count);
    t.after(() => process.off('unhandledRejection', count));
    let fail = () => {};
    const broken = new Promise<void>((_, reject) => {
      fail = () => reject(new Error('nobody listens'));
    });
    assert.equal(await within(broken, 1, 'late'), 'late');
    fail();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(unhandled, 0);
  });
});

describe('pause', () => {
  it('elapses', async () => {
    const started = performance.now();
    assert.equal(await pause(20), 'elapsed');
    // a timer may fire up to a millisecond early
    assert.ok(performance.now() - started >= 19);
  });

  it('stops with the signal, before or while it waits, and leaves no timer and no listener', async () => {
    const before = timers();
    const controller = new AbortController();
    const waiting = pause(60_000, controller.signal);
    assert.equal(await pause(1, controller.signal), 'elapsed');
    assert.equal(getEventListeners(controller.signal, 'abort').length, 1);
    controller.abort();
    assert.equal(await waiting, 'stopped');
    assert.equal(await pause(60_000, controller.signal), 'stopped');
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
    assert.equal(timers(), before);
  });
});

describe('backoff', () => {
  it('doubles from the first wait up to the bound, however often it was tried', () => {
    const waits = [1, 2, 3, 4, 5, 5000].map((n) => backoffMs(n, { firstMs: 100, maxMs: 1000 }));
    assert.deepEqual(waits, [100, 200, 400, 800, 1000, 1000]);
    assert.equal(backoffMs(5000, { firstMs: 0, maxMs: 1000 }), 0);
  });

  it('jitter leaves out a random half at most', () => {
    assert.deepEqual([jittered(100, () => 0), jittered(100, () => 0.5), jittered(100, () => 1)], [50, 75, 100]);
  });
});
