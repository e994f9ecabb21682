import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createRetryBudget } from '../../gateway/attempts/budget.ts';
import { planRetry } from '../../gateway/attempts/retry.ts';
import { retryAfterMs } from '../../gateway/attempts/retry-after.ts';
import { until } from '../support/until.ts';
import { fleet, named, whoAnswers } from './fleet-harness.ts';
import { chat, type ErrorAnswer, metric, metricReaches, setup } from './harness.ts';
import { createRawUpstream, cut, drop, hang, json, refusedUrl, type Script } from './upstream.ts';

const FAST = { backoff_ms: 1, backoff_max_ms: 2 };
const ALWAYS = { retries: { same_backend: 'always', ...FAST } };

/** Each request gets the next script; the last stays. */
function inTurn(...scripts: Script[]): Script {
  let n = 0;
  return (received) => scripts[Math.min(n++, scripts.length - 1)]!(received);
}

/** Health checks do not count as connections here. */
const NO_CHECKS = { health: { interval_ms: 0 } };

describe('retries before the first byte', () => {
  for (const status of [408, 429, 502, 503, 504]) {
    it(`${status} is tried on another backend, with the same body and id`, async (t) => {
      const error: Script = json('{"error":{}}', status);
      const { gateway, upstreams } = await fleet(t, [error, error]);
      const ok: Script = (received) => {
        const all = upstreams.flatMap((upstream) => upstream.received);
        return (all.length === 1 ? error : named('ok'))(received);
      };
      for (const upstream of upstreams) upstream.script = ok;
      assert.equal(await whoAnswers(gateway, { model: 'm' }), 'ok');
      const [a, b] = upstreams.map(({ received }) => received);
      assert.deepEqual([a!.length, b!.length], [1, 1]);
      assert.deepEqual(a![0]!.body, b![0]!.body);
      assert.equal(a![0]!.headers['x-request-id'], b![0]!.headers['x-request-id']);
      const series = upstreams.map(
        ({ url }) => `crystalkv_gateway_retries_total{backend="${url}",reason="status_${status}"}`,
      );
      const [first, second] = await Promise.all(series.map((name) => metric(gateway, name)));
      assert.equal(first! + second!, 1);
    });
  }

  for (const status of [400, 401, 404, 409, 413, 422, 500, 501]) {
    it(`${status} is not`, async (t) => {
      const { gateway, counts } = await fleet(t, [json('{}', status), json('{}', status)], ALWAYS);
      assert.equal((await chat(gateway)).status, status);
      assert.equal(counts()[0]! + counts()[1]!, 1);
    });
  }

  it('an idle connection that the backend has closed is replaced, once, and takes nothing of the budget', async (t) => {
    const retries = { ...FAST, budget_min: 0, budget_share: 0 };
    const { gateway, upstream } = await setup(t, named('warm'), { retries, ...NO_CHECKS });
    const series = `crystalkv_gateway_retries_total{backend="${upstream.url}",reason="reset"}`;
    /** Until the connection was in use again before: the answer of the client's may be there before it is idle. */
    const retried = async (...next: Script[]) => {
      let last: Response | undefined;
      const before = await metric(gateway, series);
      await until(async () => {
        upstream.script = named('warm');
        await whoAnswers(gateway, {});
        upstream.script = inTurn(...next);
        last = await chat(gateway);
        return (await metric(gateway, series)) === before! + 1;
      }, 'an idle connection was used');
      return last!;
    };
    assert.equal((await retried(drop, named('ok'))).status, 200);
    assert.equal(await metric(gateway, `crystalkv_gateway_failovers_total{backend="${upstream.url}"}`), 0);
    assert.equal((await retried(drop, drop, named('never'))).status, 502);
  });

  it('a connection that was made for the request is not', async (t) => {
    const { gateway, counts } = await fleet(t, [drop, drop], { ...ALWAYS, ...NO_CHECKS });
    assert.equal((await chat(gateway)).status, 502);
    assert.equal(counts()[0]! + counts()[1]!, 1);
  });

  it('a question that changes nothing is asked elsewhere', async (t) => {
    const { gateway } = await fleet(t, [drop, named('b')], NO_CHECKS);
    for (let i = 0; i < 4; i++) assert.equal((await fetch(`${gateway.url}/version`)).status, 200);
  });

  for (const warm of [false, true]) {
    it(`a request that ends its server is sent to no other (${warm ? 'used' : 'new'} connection)`, async (t) => {
      const { gateway, upstreams, counts } = await fleet(t, [named('a'), named('b'), named('c')], NO_CHECKS);
      if (warm) for (let i = 0; i < 3; i++) await whoAnswers(gateway, {});
      const before = counts().reduce((sum, count) => sum + count, 0);
      for (const upstream of upstreams) {
        upstream.script = ({ response }) => {
          void upstream.close();
          response.destroy();
        };
      }
      assert.equal((await chat(gateway)).status, 502);
      assert.equal(
        counts().reduce((sum, count) => sum + count, 0),
        before + 1,
      );
      // Those that were not asked serve on, and nobody sees that one is gone.
      for (const upstream of upstreams) if (upstream.received.length === before / 3) upstream.script = named('lives');
      for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'lives');
    });
  }

  it('an engine that ends under load takes only what it had with it, and none of that to another', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [named('a'), named('b')], NO_CHECKS);
    for (let i = 0; i < 4; i++) await whoAnswers(gateway, {});
    const before = counts();
    let endIt = () => {};
    const held: Promise<void> = new Promise((resolve) => {
      endIt = resolve;
    });
    const [dying, living] = upstreams;
    dying!.script = async ({ response }) => {
      await held;
      response.destroy();
    };
    const answers = Array.from({ length: 20 }, () => chat(gateway));
    await until(() => counts()[0]! + counts()[1]! === before[0]! + before[1]! + 20, 'all have been sent');
    void dying!.close();
    endIt();
    const statuses = (await Promise.all(answers)).map(({ status }) => status);
    const lost = dying!.received.length - before[0]!;
    assert.ok(lost >= 5, `${lost}`);
    assert.equal(statuses.filter((status) => status === 502).length, lost);
    assert.equal(statuses.filter((status) => status === 200).length, 20 - lost);
    assert.equal(living!.received.length, before[1]! + 20 - lost);
    for (let i = 0; i < 20; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
  });

  it('an error status of the only backend passes at once, unless asked otherwise', async (t) => {
    const { gateway, upstream } = await setup(t, inTurn(json('{"n":1}', 503), named('ok')));
    assert.equal((await chat(gateway)).status, 503);
    assert.equal(upstream.received.length, 1);
    const other = await setup(t, inTurn(json('{"n":1}', 503), named('ok')), ALWAYS);
    assert.equal(await whoAnswers(other.gateway, {}), 'ok');
  });

  it('never: a lost connection is a 502 at once', async (t) => {
    const { gateway, upstream } = await setup(t, drop, { retries: { same_backend: 'never' } });
    assert.equal((await chat(gateway)).status, 502);
    assert.equal(upstream.received.length, 1);
  });

  it('what has begun is not tried again', async (t) => {
    for (const script of [cut(['data: 1\n\n']), cut(['{"a"'], 'application/json')]) {
      const { gateway, counts } = await fleet(t, [script, script], ALWAYS);
      await (await chat(gateway)).text().catch(() => '');
      assert.equal(counts()[0]! + counts()[1]!, 1);
    }
  });

  it('an answer that is not HTTP, and one that is late, are not tried again', async (t) => {
    const raw = await createRawUpstream('garbage\r\n\r\n');
    t.after(() => raw.close());
    const { gateway, counts } = await fleet(t, [hang, hang], { ...ALWAYS, timeouts: { first_byte_ms: 100 } });
    assert.equal((await chat(gateway)).status, 504);
    assert.equal(counts()[0]! + counts()[1]!, 1);
    const single = await fleet(t, [], { ...ALWAYS, backends: [raw.url] });
    assert.equal((await chat(single.gateway)).status, 502);
    const retries = `crystalkv_gateway_retries_total{backend="${raw.url}",reason="reset"}`;
    assert.equal(await metric(single.gateway, retries), 0);
  });

  it('when retries are exhausted the last answer passes unchanged: status, body, Retry-After', async (t) => {
    let n = 0;
    const busy: Script = (received) =>
      json(`{ "error":{"n": ${++n} } }`, 503, { 'retry-after': '0', 'x-own': `${n}` })(received);
    const { gateway, counts } = await fleet(t, [busy, busy], { retries: { max: 3, same_backend: 'always', ...FAST } });
    const response = await chat(gateway);
    assert.equal(response.status, 503);
    assert.equal(await response.text(), '{ "error":{"n": 4 } }');
    assert.deepEqual([response.headers.get('retry-after'), response.headers.get('x-own')], ['0', '4']);
    assert.equal(counts()[0]! + counts()[1]!, 4);
  });

  it('the last answer is the client’s when the retry after it cannot even connect', async (t) => {
    const refused = await refusedUrl();
    const { upstreams } = await fleet(t, [json('{"busy":1}', 429, { 'retry-after': '7' })]);
    const both = await fleet(t, [], { ...NO_CHECKS, backends: [upstreams[0]!.url, refused], retries: { max: 1 } });
    for (let i = 0; i < 4; i++) {
      const response = await chat(both.gateway);
      assert.deepEqual([response.status, response.headers.get('retry-after')], [429, '7']);
      assert.equal(await response.text(), '{"busy":1}');
    }
  });

  it('a long answer with such a status is passed on as it comes', async (t) => {
    const text = `{"error":"${'x'.repeat(200_000)}"}`;
    const { gateway, counts } = await fleet(t, [json(text, 503), json(text, 503)], ALWAYS);
    const response = await chat(gateway);
    assert.equal(response.status, 503);
    assert.equal(await response.text(), text);
    assert.equal(counts()[0]! + counts()[1]!, 1);
  });
});

describe('the retry budget', () => {
  it('ends retries, and says so', async (t) => {
    const { gateway, counts } = await fleet(t, [json('{}', 503), json('{}', 503)], {
      retries: { budget_min: 2, budget_share: 0 },
    });
    for (let i = 0; i < 6; i++) assert.equal((await chat(gateway)).status, 503);
    assert.equal(counts()[0]! + counts()[1]!, 8);
    assert.equal(await metric(gateway, 'crystalkv_gateway_retries_denied_total{reason="budget"}'), 4);
  });

  it('is a share of the requests of the last windows, with a floor', () => {
    let now = 0;
    const budget = createRetryBudget(
      () => ({ budget_share: 0.5, budget_min: 1 }),
      () => now,
    );
    const take = (n: number) => Array.from({ length: n }, () => budget.take()).filter(Boolean).length;
    assert.equal(take(3), 1);
    for (let i = 0; i < 10; i++) budget.request();
    assert.equal(take(10), 4);
    now = 10_000;
    for (let i = 0; i < 4; i++) budget.request();
    assert.equal(take(10), 2);
    now = 30_000;
    assert.equal(take(10), 1);
  });

  it('counts the requests of the window before', () => {
    let now = 0;
    const budget = createRetryBudget(
      () => ({ budget_share: 0.2, budget_min: 0 }),
      () => now,
    );
    for (let i = 0; i < 10; i++) budget.request();
    now = 10_500;
    budget.request();
    assert.deepEqual([budget.take(), budget.take(), budget.take(), budget.take()], [true, true, true, false]);
  });
});

describe('Retry-After', () => {
  it('is waited for by the same backend', async (t) => {
    const { gateway, upstream } = await setup(t, inTurn(json('{}', 429, { 'retry-after': '1' }), named('ok')), ALWAYS);
    const startedAt = performance.now();
    assert.equal(await whoAnswers(gateway, {}), 'ok');
    assert.ok(performance.now() - startedAt >= 990);
    assert.equal(upstream.received.length, 2);
  });

  it('that is longer than allowed is the client’s to wait for', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}', 429, { 'retry-after': '60' }), ALWAYS);
    const response = await chat(gateway);
    assert.deepEqual([response.status, response.headers.get('retry-after')], [429, '60']);
    assert.equal(upstream.received.length, 1);
    assert.equal(await metric(gateway, 'crystalkv_gateway_retries_denied_total{reason="retry_after"}'), 1);
  });

  it('that does not fit into the total time too', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}', 503, { 'retry-after': '5' }), {
      ...ALWAYS,
      timeouts: { total_ms: 2000 },
    });
    assert.equal((await chat(gateway)).status, 503);
    assert.equal(upstream.received.length, 1);
    assert.equal(await metric(gateway, 'crystalkv_gateway_retries_denied_total{reason="deadline"}'), 1);
  });

  it('keeps other requests away from that backend while another can be asked', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [json('{}', 503, { 'retry-after': '3600' }), named('b')]);
    for (let i = 0; i < 8; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
    assert.equal(counts()[0], 1);
    assert.equal(upstreams[1]!.received.length, 8);
  });

  it('is seconds or a date', () => {
    assert.equal(retryAfterMs('2'), 2000);
    assert.equal(retryAfterMs('Thu, 01 Jan 1970 00:01:00 GMT', 30_000), 30_000);
    assert.equal(retryAfterMs('Thu, 01 Jan 1970 00:01:00 GMT', 90_000), 0);
    for (const value of ['soon', '-1', '1.5', undefined]) assert.equal(retryAfterMs(value), undefined);
  });
});

describe('back-off', () => {
  it('doubles up to its bound, less a random half', () => {
    const failed = { reason: 'reset', another: false, restMs: 0, leftMs: 10_000 } as const;
    const bounds = {
      ...{ max: 10, same_backend: 'always' as const, retry_after_max_ms: 0, budget_share: 1, budget_min: 100 },
      ...{ backoff_ms: 100, backoff_max_ms: 300 },
    };
    for (const [attempts, full] of [
      [1, 100],
      [2, 200],
      [3, 300],
      [9, 300],
    ] as const) {
      const plan = planRetry(
        { ...failed, attempts },
        bounds,
        createRetryBudget(() => bounds),
      );
      assert.ok(plan.kind === 'retry' && plan.waitMs >= full / 2 && plan.waitMs <= full, JSON.stringify(plan));
    }
  });

  it('ends at once when the client leaves, and the backend hears nothing more', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}', 503), {
      retries: { same_backend: 'always', backoff_ms: 60_000, backoff_max_ms: 60_000 },
    });
    const abort = new AbortController();
    const answer = chat(gateway, {}, { signal: abort.signal });
    const backoff = 'crystalkv_gateway_client_aborts_total{stage="backoff"}';
    const retries = `crystalkv_gateway_retries_total{backend="${upstream.url}",reason="status_503"}`;
    await metricReaches(gateway, retries, 1);
    abort.abort();
    await assert.rejects(answer);
    await metricReaches(gateway, backoff, 1);
    await metricReaches(gateway, 'crystalkv_gateway_inflight', 0);
    assert.equal(upstream.received.length, 1);
  });

  it('ends with the gateway: 503', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}', 503), {
      retries: { same_backend: 'always', backoff_ms: 60_000, backoff_max_ms: 60_000 },
    });
    const answer = chat(gateway);
    await until(() => upstream.received.length === 1, 'it was tried');
    await metricReaches(gateway, `crystalkv_gateway_retries_total{backend="${upstream.url}",reason="status_503"}`, 1);
    await gateway.close();
    const { error } = (await (await answer).json()) as ErrorAnswer;
    assert.equal(error.type, 'gateway_draining');
  });
});
