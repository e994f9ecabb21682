import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { until } from '../support/until.ts';
import { chat, type ErrorAnswer, metric, setup, startGateway } from './harness.ts';
import {
  createRawUpstream,
  createUpstream,
  cut,
  drop,
  hang,
  json,
  refusedUrl,
  type Script,
  type Upstream,
} from './upstream.ts';

async function two(t: TestContext, first: Script, second: Script): Promise<{ upstreams: Upstream[]; url: string[] }> {
  const upstreams = [await createUpstream(first), await createUpstream(second)];
  t.after(() => Promise.all(upstreams.map((upstream) => upstream.close())));
  return { upstreams, url: upstreams.map(({ url }) => url) };
}

async function gatewayFor(t: TestContext, backends: string[], config: Record<string, unknown> = {}) {
  const { gateway } = await startGateway({ backends, ...config });
  t.after(() => gateway.close());
  return gateway;
}

describe('several backends', () => {
  it('the one with the least outstanding requests gets the next', async (t) => {
    const { upstreams, url } = await two(t, hang, hang);
    const gateway = await gatewayFor(t, url);
    const counts = () => upstreams.map(({ received }) => received.length);
    const answers = [chat(gateway), chat(gateway), chat(gateway), chat(gateway)];
    await until(() => counts().join() === '2,2', 'both have two');
    for (const { response } of upstreams[1]!.received) response.end('{}');
    await until(
      async () => (await metric(gateway, `crystalkv_gateway_backend_outstanding{backend="${url[1]}"}`)) === 0,
      'the second is idle',
    );
    answers.push(chat(gateway), chat(gateway));
    await until(() => counts().join() === '2,4', 'the idle one has both new ones');
    for (const { received } of upstreams) for (const { response } of received) response.end('{}');
    await Promise.all(answers);
  });

  it('equals take turns', async (t) => {
    const { upstreams, url } = await two(t, json('{}'), json('{}'));
    const gateway = await gatewayFor(t, url);
    for (let i = 0; i < 6; i++) await (await chat(gateway)).text();
    assert.deepEqual(
      upstreams.map(({ received }) => received.length),
      [3, 3],
    );
  });
});

describe('checklist 8: no retry after the first byte, one before it', () => {
  it('a backend that refuses connections is replaced by another, and counted', async (t) => {
    const refused = await refusedUrl();
    const { url } = await two(t, json('{"ok":1}'), json('{}'));
    const gateway = await gatewayFor(t, [refused, url[0]!]);
    for (let i = 0; i < 4; i++) assert.equal(await (await chat(gateway)).text(), '{"ok":1}');
    const failovers = await metric(gateway, `crystalkv_gateway_failovers_total{backend="${refused}"}`);
    assert.ok(failovers !== undefined && failovers >= 1);
    const errors = `crystalkv_gateway_upstream_errors_total{backend="${refused}",reason="connect"}`;
    assert.equal(await metric(gateway, errors), failovers);
  });

  it('an idle connection that was closed is replaced on the same backend, with the same id and body', async (t) => {
    const { upstreams, url } = await two(t, json('{"ok":1}'), json('{"ok":1}'));
    const gateway = await gatewayFor(t, url);
    for (let i = 0; i < 2; i++) await (await chat(gateway)).text();
    let drops = 1;
    const script: Script = (received) => (drops-- > 0 ? drop(received) : json('{"ok":1}')(received));
    for (const upstream of upstreams) upstream.script = script;
    assert.equal((await chat(gateway, { model: 'm' })).status, 200);
    const all = upstreams.map(({ received }) => received.slice(1));
    const [first, second] = all.find(({ length }) => length === 2)!;
    assert.deepEqual(all.map(({ length }) => length).sort(), [0, 2]);
    assert.deepEqual(first!.body, second!.body);
    assert.equal(first!.headers['x-request-id'], second!.headers['x-request-id']);
  });

  it('a bounded number of tries is all: then 502 with a type of its own', async (t) => {
    const urls = await Promise.all([refusedUrl(), refusedUrl(), refusedUrl()]);
    const gateway = await gatewayFor(t, urls, { retries: { max: 1 } });
    const response = await chat(gateway);
    assert.equal(response.status, 502);
    assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_upstream_unreachable');
    const tried = await Promise.all(
      urls.map((url) => metric(gateway, `crystalkv_gateway_upstream_errors_total{backend="${url}",reason="connect"}`)),
    );
    assert.deepEqual(tried.sort(), [0, 1, 1]);
  });

  it('one backend that refuses connections: 502', async (t) => {
    const gateway = await gatewayFor(t, [await refusedUrl()]);
    const response = await chat(gateway);
    assert.equal(response.status, 502);
    const { error } = (await response.json()) as ErrorAnswer;
    assert.deepEqual([error.type, error.code, error.param], ['gateway_upstream_unreachable', 502, null]);
    assert.match(response.headers.get('x-request-id') ?? '', /^req-/);
  });

  it('nothing is tried again once a byte of the answer was sent', async (t) => {
    const { upstreams, url } = await two(t, cut(['data: 1\n\n']), cut(['data: 1\n\n']));
    const gateway = await gatewayFor(t, url);
    assert.match(await (await chat(gateway)).text(), /gateway_upstream_broken/);
    assert.equal(upstreams[0]!.received.length + upstreams[1]!.received.length, 1);
  });

  it('an error status that says nothing about overload is an answer, not a reason to try elsewhere', async (t) => {
    const { upstreams, url } = await two(t, json('{}', 500), json('{}', 500));
    const gateway = await gatewayFor(t, url);
    assert.equal((await chat(gateway)).status, 500);
    assert.equal(upstreams[0]!.received.length + upstreams[1]!.received.length, 1);
  });

  it('a backend that is slow to answer is not asked twice: 504 and aborted', async (t) => {
    const { upstreams, url } = await two(t, hang, hang);
    const gateway = await gatewayFor(t, url, { timeouts: { first_byte_ms: 100 } });
    const response = await chat(gateway);
    assert.equal(response.status, 504);
    assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_upstream_timeout');
    const all = upstreams.flatMap(({ received }) => received);
    assert.equal(all.length, 1);
    await until(() => all[0]!.aborted, 'the backend sees the connection close');
  });

  it('the total time holds whatever the request does', async (t) => {
    const { gateway, upstream } = await setup(t, hang, { timeouts: { total_ms: 1000 } });
    const response = await chat(gateway);
    assert.equal(response.status, 504);
    await until(() => upstream.received[0]!.aborted, 'the backend sees the connection close');
    const errors = `crystalkv_gateway_upstream_errors_total{backend="${upstream.url}",reason="total_timeout"}`;
    assert.equal(await metric(gateway, errors), 1);
  });

  it('an answer that is not HTTP is a 502', async (t) => {
    const raw = await createRawUpstream('not http at all\r\n\r\n');
    t.after(() => raw.close());
    const gateway = await gatewayFor(t, [raw.url]);
    const response = await chat(gateway);
    assert.equal(response.status, 502);
    assert.equal(((await response.json()) as ErrorAnswer).error.type, 'gateway_upstream_broken');
  });

  it('a backend that comes back is used again', async (t) => {
    const upstream = await createUpstream(json('{"n":1}'));
    const gateway = await gatewayFor(t, [upstream.url]);
    assert.equal(await (await chat(gateway)).text(), '{"n":1}');
    await upstream.close();
    assert.equal((await chat(gateway)).status, 502);
    const again = await createUpstream(json('{"n":2}'), upstream.port);
    t.after(() => again.close());
    assert.equal(await (await chat(gateway)).text(), '{"n":2}');
  });
});
