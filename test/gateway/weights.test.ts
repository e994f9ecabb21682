import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gatewaySchema } from '../../gateway/config.ts';
import { Backend, type BackendSpec } from '../../gateway/fleet/backend.ts';
import { BALANCE_RULES, type BalanceSettings, choose } from '../../gateway/fleet/balance.ts';
import { until } from '../support/until.ts';
import { fleet, named, whoAnswers } from './fleet-harness.ts';
import { chat } from './harness.ts';
import { createUpstream, hang, json } from './upstream.ts';

const { balance: DEFAULTS, breaker } = gatewaySchema.parse({});

function backends(...weights: number[]): Backend[] {
  const deps = {
    times: { connect_ms: 1_000, first_byte_ms: 1_000, idle_ms: 1_000 },
    breaker: () => breaker,
    policy: { token: undefined, ca: undefined },
  };
  return weights.map((weight, i) => new Backend({ url: `http://127.0.0.1:${i + 1}`, weight } as BackendSpec, deps));
}

/** Keeps `running` requests running, of which the oldest ends each time; how many of 1100 each got. */
function share(all: readonly Backend[], running: number, rule: BalanceSettings['rule'], hash?: () => number): number[] {
  const counts = all.map(() => 0);
  const open: Backend[] = [];
  for (let i = 0; i < 1_100; i++) {
    if (open.length === running) open.shift()!.outstanding--;
    const chosen = choose(all, { prefixHash: hash?.(), home: undefined }, { ...DEFAULTS, rule });
    chosen.outstanding++;
    open.push(chosen);
    counts[all.indexOf(chosen)]!++;
  }
  return counts;
}

describe('weights of backends', () => {
  for (const rule of BALANCE_RULES) {
    it(`${rule}: each gets its share, whether requests come one by one or many run`, () => {
      for (const running of [1, 2, 5, 22, 110, 440]) {
        const [a, b, c] = share(backends(5, 5, 1), running, rule) as [number, number, number];
        assert.ok(Math.abs(c - 100) <= 10, `${c} of 1100 with ${running} running`);
        assert.ok(Math.abs(a - b) <= 10, `${a} and ${b} with ${running} running`);
      }
    });
  }

  it('those of the same weight stay level, whatever the weight of a third', () => {
    const [a, b, c] = backends(100, 100, 1) as [Backend, Backend, Backend];
    a.outstanding = 7;
    b.outstanding = 3;
    for (let i = 0; i < 4; i++) choose([a, b, c], { prefixHash: undefined, home: undefined }, DEFAULTS).outstanding++;
    assert.equal(a.outstanding, 7);
    assert.ok(b.outstanding >= 6 && c.outstanding <= 1);
  });

  it('one that was away does not catch up', () => {
    const [a, b] = backends(1, 1) as [Backend, Backend];
    const next = (of: Backend[]) => choose(of, { prefixHash: undefined, home: undefined }, DEFAULTS);
    for (let i = 0; i < 50; i++) next([a, a]);
    const counts = [0, 0];
    for (let i = 0; i < 20; i++) counts[next([a, b]) === a ? 0 : 1]!++;
    assert.ok(counts[1]! <= 11, counts.join());
  });

  it('prefix affinity: conversations and the bound on load go by weight', () => {
    const all = backends(3, 1);
    let n = 0;
    const hash = () => Math.imul(n++, 0x9e3779b1);
    const [heavy] = share(all, 1, 'prefix_affinity', hash) as [number, number];
    assert.ok(Math.abs(heavy - 825) < 50, `${heavy} of 1100 conversations`);
    const same = backends(3, 1);
    let most = 0;
    for (let i = 0; i < 400; i++) {
      const chosen = choose(same, { prefixHash: 7, home: same[1] }, { ...DEFAULTS, rule: 'prefix_affinity' });
      chosen.outstanding++;
      most = Math.max(most, same[1]!.outstanding);
    }
    // A quarter of 400, and a quarter more of that.
    assert.ok(most >= 120 && most <= 126, `${most} of one conversation at its home`);
  });

  it('a backend of weight 0 gets what no other can take', async (t) => {
    const upstreams = [await createUpstream(named('a')), await createUpstream(named('spare'))];
    t.after(() => Promise.all(upstreams.map((upstream) => upstream.close())));
    const [a, spare] = upstreams.map(({ url }) => url);
    const { gateway } = await fleet(t, [], {
      backends: [a, { url: spare, weight: 0 }],
      health: { interval_ms: 0 },
      admission: { concurrency: 1 },
    });
    for (let i = 0; i < 5; i++) assert.equal(await whoAnswers(gateway, {}), 'a');
    upstreams[0]!.script = json('{}', 503);
    assert.equal(await whoAnswers(gateway, {}), 'spare');
    upstreams[0]!.script = hang;
    const before = upstreams[0]!.received.length;
    const abort = new AbortController();
    const running = chat(gateway, {}, { signal: abort.signal }).catch(() => {});
    await until(() => upstreams[0]!.received.length === before + 1, 'the first is full');
    assert.equal(await whoAnswers(gateway, {}), 'spare');
    abort.abort();
    await running;
  });

  it('is a whole number from 0 to 1000, of each address of a name too', () => {
    const parse = (weight: unknown) => gatewaySchema.safeParse({ backends: [{ url: 'http://x:1', weight }] });
    for (const good of [0, 1, 1000]) assert.ok(parse(good).success);
    for (const bad of [-1, 1.5, 1001, '1']) assert.match(parse(bad).error?.message ?? '', /weight/);
    assert.ok(gatewaySchema.safeParse({ backends: [{ dns: 'x', port: 1, weight: 3 }] }).success);
  });
});
