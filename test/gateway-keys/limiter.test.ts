import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { type Lease, type Limiter, type Limits, type Verdict, WINDOWS } from '../../gateway/limits/limiter.ts';
import { createMemoryLimiter } from '../../gateway/limits/memory.ts';
import { createRedisLimiter } from '../../gateway/limits/redis.ts';
import { until } from '../support/until.ts';
import { NO_REDIS, startRedis } from './redis-server.ts';

const redis = NO_REDIS === false ? await startRedis({ after }) : undefined;
const client = redis?.client();
const NOON = Date.UTC(2026, 0, 31, 12);
let prefixes = 0;

/** A clock that stands still until it is moved. */
function clock(start = NOON) {
  let now = start;
  const pass = (ms: number) => {
    now += ms;
  };
  return { now: () => now, pass };
}

const inRedis = (now: () => number) => createRedisLimiter(client!, `test-${prefixes++}`, WINDOWS, now);
const inMemory = (now: () => number) => createMemoryLimiter(WINDOWS, now);

let leases = 0;
const lease = (reserve = 0, key = 'k'): Lease => ({ key, id: `lease-${leases++}`, reserve });
const limitOf = (verdict: Verdict) => (verdict.kind === 'refused' ? verdict.limit : verdict.kind);

/** What counters do, wherever they are. */
function behaves(name: string, skip: string | false, create: (now: () => number) => Limiter): void {
  describe(name, { skip }, () => {
    it('admit as many requests as a minute has room for, and say when there is room again', async () => {
      const { now, pass } = clock();
      const limiter = create(now);
      const limits: Limits = { requestsPerMinute: 3 };
      for (let used = 1; used <= 3; used++) {
        const verdict = await limiter.admit(lease(), limits);
        assert.deepEqual([verdict.kind, verdict.counts.requests], ['admitted', used]);
        pass(1_000);
      }
      const refused = await limiter.admit(lease(), limits);
      assert.ok(refused.kind === 'refused');
      // All three are in the slice of 5 s that began at noon, which is out at 12:01:05; 3 s have passed.
      assert.deepEqual([refused.limit, refused.retryMs], ['requests_per_minute', 62_000]);
      pass(refused.retryMs - 1);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'requests_per_minute');
      pass(1);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'admitted');
    });

    it('never admit more in any 60 s, wherever they begin', async () => {
      const { now, pass } = clock();
      const limiter = create(now);
      const admitted: number[] = [];
      for (let step = 0; step < 200; step++) {
        const verdict = await limiter.admit(lease(), { requestsPerMinute: 7 });
        if (verdict.kind === 'admitted') admitted.push(now());
        pass(1_300);
      }
      for (const from of admitted) {
        assert.ok(admitted.filter((at) => at >= from && at < from + 60_000).length <= 7);
      }
      assert.ok(admitted.length >= 21, 'and use the room that there is');
    });

    it('hold the number of requests at the same time, and give a place back', async () => {
      const limiter = create(clock().now);
      const limits: Limits = { concurrentRequests: 2 };
      const [one, two] = [lease(), lease()];
      await limiter.admit(one, limits);
      await limiter.admit(two, limits);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'concurrent_requests');
      await limiter.settle(one, 0);
      await limiter.settle(one, 0);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'admitted');
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'concurrent_requests');
    });

    it('count tokens when a request has ended, and what it reserved until then', async () => {
      const { now, pass } = clock();
      const limiter = create(now);
      const limits: Limits = { tokensPerMinute: 100 };
      const one = lease(70);
      const two = lease(70);
      assert.equal((await limiter.admit(one, limits)).counts.reserved, 70);
      assert.equal((await limiter.admit(two, limits)).counts.reserved, 140);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'tokens_per_minute');
      await limiter.settle(one, 10);
      await limiter.settle(two, 20);
      const three = lease(5);
      const { counts } = await limiter.admit(three, limits);
      assert.deepEqual([counts.tokens, counts.reserved, counts.running], [30, 5, 1]);
      await limiter.settle(three, 90);
      const refused = await limiter.admit(lease(), limits);
      assert.ok(refused.kind === 'refused' && refused.limit === 'tokens_per_minute');
      pass(refused.retryMs);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'admitted');
    });

    it('hold the budget of a day, which begins anew at midnight of UTC', async () => {
      const { now, pass } = clock(Date.UTC(2026, 0, 31, 23, 0));
      const limiter = create(now);
      const limits: Limits = { tokensPerDay: 50 };
      const one = lease(10);
      await limiter.admit(one, limits);
      await limiter.settle(one, 40);
      await limiter.charge('k', 10);
      const refused = await limiter.admit(lease(), limits);
      assert.ok(refused.kind === 'refused');
      assert.deepEqual([refused.limit, refused.retryMs, refused.counts.tokensToday], ['tokens_per_day', 3_600_000, 50]);
      pass(refused.retryMs);
      const { kind, counts } = await limiter.admit(lease(), limits);
      assert.deepEqual([kind, counts.tokensToday], ['admitted', 0]);
    });

    it('count as before when the clock goes back', async () => {
      const { now, pass } = clock(Date.UTC(2026, 0, 31, 23, 30));
      const limiter = create(now);
      const limits: Limits = { requestsPerMinute: 2, tokensPerDay: 100 };
      await limiter.charge('k', 30);
      pass(3_600_000);
      await limiter.admit(lease(), limits);
      await limiter.admit(lease(), limits);
      await limiter.charge('k', 20);
      pass(-3_600_000);
      const refused = await limiter.admit(lease(), limits);
      assert.ok(refused.kind === 'refused' && refused.retryMs <= 65_000, 'not for as long as the clock went back');
      assert.deepEqual([refused.counts.requests, refused.counts.tokensToday], [2, 50]);
      pass(refused.retryMs);
      assert.equal(limitOf(await limiter.admit(lease(), limits)), 'admitted');
    });

    it('never have less than nothing reserved, however much a request reserves', async () => {
      const limiter = create(clock().now);
      const limits: Limits = { tokensPerMinute: 1e30 };
      const [small, giant] = [lease(63), lease(1e18)];
      await limiter.admit(small, limits);
      await limiter.admit(giant, limits);
      await limiter.settle(giant, 0);
      const third = lease(0);
      assert.equal((await limiter.admit(third, limits)).counts.reserved, 63);
      await limiter.settle(small, 0);
      assert.equal((await limiter.admit(lease(), limits)).counts.reserved, 0);
    });

    it('keep keys apart', async () => {
      const limiter = create(clock().now);
      const limits: Limits = { requestsPerMinute: 1 };
      await limiter.admit(lease(0, 'a'), limits);
      assert.equal(limitOf(await limiter.admit(lease(0, 'a'), limits)), 'requests_per_minute');
      assert.equal(limitOf(await limiter.admit(lease(0, 'b'), limits)), 'admitted');
    });

    it('are exact when all come at once', async () => {
      const limiter = create(clock().now);
      const all = await Promise.all(
        Array.from({ length: 60 }, () => limiter.admit(lease(), { requestsPerMinute: 40, concurrentRequests: 25 })),
      );
      assert.equal(all.filter(({ kind }) => kind === 'admitted').length, 25);
    });
  });
}

behaves('counters in memory', false, inMemory);
behaves('counters in Redis', NO_REDIS, inRedis);

describe('counters in Redis alone', { skip: NO_REDIS }, () => {
  it('count a request whose gateway is gone as ended, unless it is renewed', async () => {
    const { now, pass } = clock();
    const limiter = inRedis(now);
    const limits: Limits = { concurrentRequests: 2 };
    const [lost, kept] = [lease(7), lease(5)];
    await limiter.admit(lost, limits);
    await limiter.admit(kept, limits);
    pass(WINDOWS.lease - 1);
    await limiter.renew([kept]);
    assert.equal(limitOf(await limiter.admit(lease(), limits)), 'concurrent_requests');
    pass(1);
    const { kind, counts } = await limiter.admit(lease(), limits);
    assert.deepEqual([kind, counts.running, counts.reserved], ['admitted', 2, 5]);
  });

  it('reserve nothing for gateways that are gone, even when nobody has asked since', async () => {
    const short = { ...WINDOWS, lease: 50 };
    const prefix = `test-${prefixes++}`;
    const limits: Limits = { tokensPerMinute: 100 };
    const gone = createRedisLimiter(client!, prefix, short);
    assert.equal((await gone.admit(lease(500), limits)).counts.reserved, 500);
    await until(async () => (await client!.keys(`${prefix}:*running`)).length === 0, 'the running requests are gone');
    const { kind, counts } = await gone.admit(lease(1), limits);
    assert.deepEqual([kind, counts.reserved], ['admitted', 1]);
  });

  it('reserve again for what still runs when the clock has gone ahead or Redis has lost it', async () => {
    const { now, pass } = clock();
    const limiter = inRedis(now);
    const limits: Limits = { tokensPerMinute: 100 };
    const running = lease(70);
    const reserved = async () => {
      const probe = lease(0);
      const { counts } = await limiter.admit(probe, limits);
      await limiter.settle(probe, 0);
      return [counts.reserved, counts.running - 1];
    };
    await limiter.admit(running, limits);
    pass(3_600_000);
    assert.deepEqual(await reserved(), [0, 0]);
    await limiter.renew([running]);
    assert.deepEqual(await reserved(), [70, 1]);
    for (const name of await client!.keys(`test-${prefixes - 1}:*`)) await client!.del(name);
    await limiter.renew([running]);
    await limiter.renew([running]);
    assert.deepEqual(await reserved(), [70, 1]);
    await limiter.settle(running, 0);
    assert.deepEqual(await reserved(), [0, 0]);
  });

  it('let a lease end in its time when the clock has gone back', async () => {
    const { now, pass } = clock();
    const limiter = inRedis(now);
    await limiter.admit(lease(70), { tokensPerMinute: 100 });
    pass(-3_600_000);
    assert.equal((await limiter.admit(lease(0), { tokensPerMinute: 100 })).counts.reserved, 70);
    pass(WINDOWS.lease + 1);
    assert.equal((await limiter.admit(lease(0), { tokensPerMinute: 100 })).counts.reserved, 0);
  });

  it('go by the clock of Redis, and are shared by limiters of their own connections', async () => {
    const prefix = `test-${prefixes++}`;
    const limiters = [1, 2].map(() => createRedisLimiter(redis!.client(), prefix));
    const verdicts = await Promise.all(
      Array.from({ length: 40 }, (_, index) => limiters[index % 2]!.admit(lease(), { requestsPerMinute: 11 })),
    );
    assert.equal(verdicts.filter(({ kind }) => kind === 'admitted').length, 11);
  });

  it('leave nothing behind that does not expire', async () => {
    const limiter = inRedis(() => Date.now());
    const one = lease(1);
    await limiter.admit(one, { requestsPerMinute: 5 });
    const names = await client!.keys(`test-${prefixes - 1}:*`);
    assert.equal(names.length, 2);
    for (const name of names) assert.ok((await client!.pttl(name)) > 0, name);
  });
});

describe('memory and Redis', { skip: NO_REDIS }, () => {
  const limits = fc.record({
    requestsPerMinute: fc.option(fc.integer({ min: 1, max: 6 }), { nil: undefined }),
    tokensPerMinute: fc.option(fc.integer({ min: 1, max: 200 }), { nil: undefined }),
    concurrentRequests: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
    tokensPerDay: fc.option(fc.integer({ min: 1, max: 600 }), { nil: undefined }),
  });
  const step = fc.oneof(
    fc.record({ kind: fc.constant('admit' as const), reserve: fc.integer({ min: 0, max: 90 }) }),
    fc.record({ kind: fc.constant('settle' as const), which: fc.nat(20), tokens: fc.integer({ min: 0, max: 120 }) }),
    fc.record({ kind: fc.constant('charge' as const), tokens: fc.integer({ min: 0, max: 50 }) }),
    fc.record({
      kind: fc.constant('pass' as const),
      ms: fc.oneof(fc.nat(9_000), fc.nat(90_000), fc.constant(-400_000)),
    }),
  );

  it('answer the same to any sequence of questions', async () => {
    await fc.assert(
      fc.asyncProperty(limits, fc.array(step, { maxLength: 40 }), async (limits, steps) => {
        const { now, pass } = clock(Date.UTC(2026, 0, 31, 23, 57));
        // Requests that run for longer than a lease are renewed in life.
        const windows = { ...WINDOWS, lease: WINDOWS.day };
        const shared = createRedisLimiter(client!, `test-${prefixes++}`, windows, now);
        const local = createMemoryLimiter(windows, now);
        const running: Lease[] = [];
        for (const one of steps) {
          if (one.kind === 'pass') pass(one.ms);
          else if (one.kind === 'charge')
            await Promise.all([shared, local].map((each) => each.charge('k', one.tokens)));
          else if (one.kind === 'admit') {
            const its = lease(one.reserve);
            const verdict = await local.admit(its, limits);
            assert.deepEqual(await shared.admit(its, limits), verdict);
            if (verdict.kind === 'admitted') running.push(its);
          } else {
            const [its] = running.splice(one.which % Math.max(1, running.length), 1);
            if (its !== undefined) await Promise.all([shared, local].map((each) => each.settle(its, one.tokens)));
          }
        }
      }),
      { numRuns: 100 },
    );
  });
});
