import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Breaker, type BreakerSettings } from '../../gateway/fleet/breaker.ts';
import { inService } from '../../gateway/fleet/in-service.ts';
import { until } from '../support/until.ts';
import { fleet, isHealthy, named, whoAnswers } from './fleet-harness.ts';
import { chat } from './harness.ts';
import { hang, json } from './upstream.ts';

const SETTINGS: BreakerSettings = {
  failures: 3,
  failure_share: 0.5,
  min_requests: 10,
  window_ms: 1000,
  open_ms: 100,
  open_max_ms: 300,
};

function breaker(settings: Partial<BreakerSettings> = {}) {
  let now = 0;
  const made = new Breaker(
    () => ({ ...SETTINGS, ...settings }),
    () => now,
  );
  return {
    made,
    fail: () => made.fail(made.begin()),
    succeed: () => made.succeed(made.begin()),
    wait: (ms: number) => {
      now += ms;
    },
  };
}

describe('the circuit breaker', () => {
  it('opens after so many failures in a row, and a success in between starts the count anew', () => {
    const { made, fail, succeed } = breaker();
    assert.deepEqual([fail(), fail()], [false, false]);
    succeed();
    assert.deepEqual([fail(), fail(), made.state], [false, false, 'closed']);
    assert.equal(fail(), true);
    assert.deepEqual([made.state, made.allows], ['open', false]);
  });

  it('opens at a share of failures, once there were enough requests in the window', () => {
    const { made, fail, succeed, wait } = breaker();
    for (let i = 0; i < 4; i++) {
      succeed();
      fail();
    }
    assert.equal(made.state, 'closed');
    succeed();
    assert.equal(fail(), true);
    const other = breaker();
    for (let i = 0; i < 9; i++) {
      other.fail();
      other.succeed();
      other.wait(1001);
    }
    assert.equal(other.made.state, 'closed');
    wait(0);
  });

  it('lets one test through after its time; success closes it', () => {
    const { made, fail, wait } = breaker();
    for (let i = 0; i < 3; i++) fail();
    wait(99);
    assert.equal(made.allows, false);
    wait(1);
    assert.deepEqual([made.state, made.allows], ['half_open', true]);
    const test = made.begin();
    assert.equal(made.allows, false);
    made.succeed(test);
    assert.deepEqual([made.state, made.allows, made.openSince], ['closed', true, undefined]);
  });

  it('stays open twice as long after each failed test, up to a bound', () => {
    const { made, fail, wait } = breaker();
    for (let i = 0; i < 3; i++) fail();
    for (const ms of [200, 300, 300]) {
      wait(300);
      assert.equal(fail(), true);
      wait(ms - 1);
      assert.equal(made.state, 'open');
      wait(1);
      assert.equal(made.state, 'half_open');
    }
  });

  it('a test that says nothing leaves room for the next', () => {
    const { made, fail, wait } = breaker();
    for (let i = 0; i < 3; i++) fail();
    wait(100);
    made.forget(made.begin());
    assert.deepEqual([made.state, made.allows], ['half_open', true]);
  });

  it('requests that were sent before it opened decide nothing; those sent against its word do', () => {
    const { made, fail } = breaker();
    const late = made.begin();
    for (let i = 0; i < 3; i++) fail();
    made.succeed(late);
    assert.equal(made.state, 'open');
    assert.equal(fail(), false);
    made.succeed(made.begin());
    assert.equal(made.state, 'closed');
  });

  it('is tested at once when there is a sign of recovery', () => {
    const { made, fail } = breaker();
    for (let i = 0; i < 3; i++) fail();
    made.recheck();
    assert.deepEqual([made.state, made.allows], ['half_open', true]);
  });
});

describe('the breaker of a backend beside another', () => {
  const once = { failures: 1, max_ejected_share: 0.5 };
  const fails = json('{}', 500);

  it('gives the test back when its client leaves', async (t) => {
    const { gateway, upstreams } = await fleet(t, [fails, named('b')], {
      breaker: { ...once, open_ms: 100, open_max_ms: 100 },
      retries: { max: 0 },
      health: { interval_ms: 0 },
    });
    const a = upstreams[0]!;
    await until(async () => (await whoAnswers(gateway, {})) === 500, 'a fails');
    a.script = hang;
    const before = a.received.length;
    await until(async () => {
      await chat(gateway, {}, { signal: AbortSignal.timeout(200) }).catch(() => {});
      return a.received.length > before;
    }, 'a is tested by a client that leaves');
    a.script = named('a');
    await until(async () => (await whoAnswers(gateway, {})) === 'a', 'a is tested again', { ms: 5_000 });
  });

  it('may be tested at once when a health check is good again, however long it was to stay open', async (t) => {
    const { gateway, upstreams } = await fleet(t, [fails, named('b')], {
      breaker: { ...once, open_ms: 3_600_000, open_max_ms: 3_600_000 },
      retries: { max: 0 },
      health: { interval_ms: 100, failures: 1 },
    });
    const a = upstreams[0]!;
    await until(async () => (await whoAnswers(gateway, {})) === 500, 'a fails');
    a.healthy = false;
    await isHealthy(gateway, a, false);
    a.script = named('a');
    a.healthy = true;
    await isHealthy(gateway, a, true);
    await until(async () => (await whoAnswers(gateway, {})) === 'a', 'a is tested', { ms: 5_000 });
  });
});

describe('the share that may be left out', () => {
  const backends = (...since: (number | undefined)[]) => since.map((illSince, name) => ({ name, illSince }));
  const names = (all: ReturnType<typeof backends>, share: number) => inService(all, share).map(({ name }) => name);

  it('the ill ones are out while they are few', () => {
    assert.deepEqual(names(backends(undefined, 1, undefined, 2), 0.5), [0, 2]);
    assert.deepEqual(names(backends(undefined, undefined), 0.5), [0, 1]);
  });

  it('beyond it the last to fall ill are asked again', () => {
    assert.deepEqual(names(backends(3, 1, undefined, 2), 0.5), [0, 2]);
    assert.deepEqual(names(backends(3, 1, 4, 2), 0.5), [0, 2]);
  });

  it('a single backend always serves; 1 leaves out all, 0 none', () => {
    assert.deepEqual(names(backends(1), 0.5), [0]);
    assert.deepEqual(names(backends(1, 2), 1), []);
    assert.deepEqual(names(backends(1, 2), 0), [0, 1]);
  });
});
