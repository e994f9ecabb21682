import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { fleet, isHealthy, named, whoAnswers } from './fleet-harness.ts';
import { chat, metric, startGateway } from './harness.ts';
import { createUpstream, drop, json, refusedUrl } from './upstream.ts';

const CHECKS = { health: { interval_ms: 50, failures: 2 } };
const NO_RETRY = { retries: { max: 0 } };

describe('health', () => {
  it('a backend whose checks fail gets no requests until one succeeds', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [named('a'), named('b')], { ...CHECKS, ...NO_RETRY });
    upstreams[0]!.healthy = false;
    await isHealthy(gateway, upstreams[0]!, false);
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
    assert.deepEqual(counts(), [0, 4]);
    upstreams[0]!.healthy = true;
    await isHealthy(gateway, upstreams[0]!, true);
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push(await whoAnswers(gateway, {}));
    assert.ok(answers.includes('a'));
  });

  it('when all look bad, they are still asked', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], { ...CHECKS, ...NO_RETRY });
    for (const upstream of upstreams) upstream.healthy = false;
    for (const upstream of upstreams) await isHealthy(gateway, upstream, false);
    for (let i = 0; i < 4; i++) assert.equal((await chat(gateway)).status, 200);
  });

  it('a backend that is restarted is used again', async (t) => {
    const gone = await createUpstream(named('a'));
    const stays = await createUpstream(named('b'));
    t.after(() => stays.close());
    const { gateway } = await startGateway({ backends: [gone.url, stays.url], ...CHECKS });
    t.after(() => gateway.close());
    await gone.close();
    await isHealthy(gateway, gone, false);
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
    const again = await createUpstream(named('a2'), gone.port);
    t.after(() => again.close());
    await until(async () => (await whoAnswers(gateway, {})) === 'a2', 'the new process gets requests');
  });

  it('0 as interval asks nothing', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], { health: { interval_ms: 0 } });
    upstreams[0]!.healthy = false;
    for (let i = 0; i < 4; i++) await whoAnswers(gateway, {});
    assert.equal(await metric(gateway, `crystalkv_gateway_backend_healthy{backend="${upstreams[0]!.url}"}`), 1);
  });
});

describe('breakers of a fleet', () => {
  const BREAKER = { breaker: { failures: 2, open_ms: 200 }, health: { interval_ms: 0 } };
  const state = (url: string, name: string) => `crystalkv_gateway_breaker_state{backend="${url}",state="${name}"}`;

  it('errors open it, the others serve, and one test after its time closes it', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [json('{}', 500), named('b')], { ...BREAKER, ...NO_RETRY });
    const url = upstreams[0]!.url;
    await until(async () => {
      await (await chat(gateway)).text();
      return (await metric(gateway, state(url, 'open'))) === 1;
    }, 'it opens');
    assert.equal(await metric(gateway, `crystalkv_gateway_breaker_opened_total{backend="${url}"}`), 1);
    assert.equal(counts()[0], 2);
    upstreams[0]!.script = named('a');
    await until(async () => (await whoAnswers(gateway, {})) === 'a', 'it is tested');
    assert.equal(await metric(gateway, state(url, 'closed')), 1);
  });

  it('lost connections open it', async (t) => {
    const { gateway, upstreams } = await fleet(t, [drop, named('b')], BREAKER);
    await until(async () => {
      await (await chat(gateway)).text();
      return (await metric(gateway, state(upstreams[0]!.url, 'open'))) === 1;
    }, 'it opens');
  });

  it('errors of the client’s and overload do not', async (t) => {
    const { gateway, upstreams } = await fleet(t, [json('{}', 400), json('{}', 429)], { ...BREAKER, ...NO_RETRY });
    for (let i = 0; i < 10; i++) await (await chat(gateway)).text();
    for (const { url } of upstreams) assert.equal(await metric(gateway, state(url, 'closed')), 1);
  });

  it('of two that fail one is still asked, and of one that one', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [json('{}', 500), json('{}', 500)], {
      breaker: { failures: 2, open_ms: 3_600_000, open_max_ms: 3_600_000 },
      health: { interval_ms: 0 },
      ...NO_RETRY,
    });
    for (let i = 0; i < 12; i++) assert.equal((await chat(gateway)).status, 500);
    assert.equal(counts()[0]! + counts()[1]!, 12);
    for (const upstream of upstreams) upstream.script = named('back');
    await until(async () => (await whoAnswers(gateway, {})) === 'back', 'what is asked can come back');
    const single = await startGateway({ backends: [await refusedUrl()], ...BREAKER, ...NO_RETRY });
    t.after(() => single.gateway.close());
    for (let i = 0; i < 5; i++) assert.equal((await chat(single.gateway)).status, 502);
  });
});
