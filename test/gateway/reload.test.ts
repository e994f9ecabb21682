import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gatewaySchema } from '../../gateway/config.ts';
import { until } from '../support/until.ts';
import { fleet, named, whoAnswers } from './fleet-harness.ts';
import { chat, metric, metricReaches, setup } from './harness.ts';
import { listening, run } from './program.ts';
import { createUpstream, hang, hangAfter, json } from './upstream.ts';

describe('a new list of backends', () => {
  it('drops no request: a stream on a removed backend goes on, new requests go to the others', async (t) => {
    const { gateway, upstreams, reload } = await fleet(t, [hangAfter(['data: 1\n\n']), named('b')]);
    const [removed, stays] = upstreams;
    let streaming = await chat(gateway, { stream: true });
    if (streaming.headers.get('content-type')?.includes('json')) streaming = await chat(gateway, { stream: true });
    const reader = streaming.body!.getReader();
    await reader.read();
    reload({ backends: [stays!.url] });
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
    const outstanding = `crystalkv_gateway_backend_outstanding{backend="${removed!.url}"}`;
    assert.equal(await metric(gateway, outstanding), 1);
    removed!.received[0]!.response.end('data: [DONE]\n\n');
    let rest = '';
    for (let part = await reader.read(); !part.done; part = await reader.read())
      rest += Buffer.from(part.value).toString();
    assert.equal(rest, 'data: [DONE]\n\n');
    assert.equal(removed!.received[0]!.aborted, false);
    await metricReaches(gateway, 'crystalkv_gateway_inflight', 0);
    const text = await until(async () => {
      const now = await (await fetch(gateway.metricsUrl)).text();
      return !now.includes(removed!.url) && now;
    }, 'the series of the removed backend are gone');
    assert.ok(text.includes(stays!.url));
  });

  it('a backend that stays keeps what runs on it, one that is added gets requests', async (t) => {
    const { gateway, upstreams, reload } = await fleet(t, [hang]);
    const running = chat(gateway);
    await until(() => upstreams[0]!.received.length === 1, 'it runs');
    const added = await createUpstream(named('new'));
    t.after(() => added.close());
    reload({ backends: [upstreams[0]!.url, added.url] });
    assert.equal(await whoAnswers(gateway, {}), 'new');
    const outstanding = `crystalkv_gateway_backend_outstanding{backend="${upstreams[0]!.url}"}`;
    assert.equal(await metric(gateway, outstanding), 1);
    upstreams[0]!.received[0]!.response.end('{}');
    assert.equal(await (await running).text(), '{}');
  });

  it('a backend that goes and comes back while it still finishes something works', async (t) => {
    const { gateway, upstreams, reload } = await fleet(t, [hang, named('b')]);
    const running = [chat(gateway), chat(gateway)];
    await until(() => upstreams[0]!.received.length === 1, 'it runs');
    reload({ backends: [upstreams[1]!.url] });
    reload({});
    upstreams[0]!.script = named('a');
    await until(async () => (await whoAnswers(gateway, {})) === 'a', 'it gets requests again');
    upstreams[0]!.received[0]!.response.end('{"name":"late"}');
    await Promise.all(running.map(async (answer) => (await answer).text()));
    await until(async () => (await whoAnswers(gateway, {})) === 'a', 'it still does');
    const healthy = `crystalkv_gateway_backend_healthy{backend="${upstreams[0]!.url}"}`;
    assert.equal(await metric(gateway, healthy), 1);
  });

  it('under load no request fails', async (t) => {
    const { gateway, upstreams, reload } = await fleet(t, [named('a'), named('b'), named('c')]);
    const urls = upstreams.map(({ url }) => url);
    const failed: unknown[] = [];
    let answered = 0;
    let done = false;
    const clients = Array.from({ length: 8 }, async () => {
      while (!done) {
        const answer = await whoAnswers(gateway, {});
        if (typeof answer === 'number') failed.push(answer);
        answered++;
      }
    });
    for (let i = 0; i < 30; i++) {
      reload({ backends: urls.filter((_, n) => n !== i % 3) });
      const before = answered;
      await until(() => answered > before + 4, 'requests go on');
    }
    done = true;
    await Promise.all(clients);
    assert.deepEqual(failed, []);
  });

  it('what cannot change while it runs is named and left', async (t) => {
    const { gateway, log, reload } = await fleet(t, [named('a')]);
    reload({ host: '127.0.0.2', workers: 4, balance: { rule: 'prefix_affinity' } });
    const line = log.find(({ options }) => options !== undefined);
    assert.deepEqual(line?.['options'], ['host', 'workers']);
    assert.equal(await whoAnswers(gateway, {}), 'a');
  });

  it('brings profiles that requests may name at once, and takes others away', async (t) => {
    const { gateway } = await setup(t, json('{}'), {}, ['old']);
    const asks = async (profile: string) =>
      (await chat(gateway, { model: 'm', messages: [], crystal_kv: { profile } })).status;
    assert.deepEqual([await asks('old'), await asks('new')], [200, 400]);
    const config = gatewaySchema.parse({ backends: ['http://127.0.0.1:9'] });
    gateway.reload(config, ['new']);
    assert.deepEqual([await asks('old'), await asks('new')], [400, 502]);
    const described = await (await fetch(`${gateway.url}/openapi.json`)).text();
    assert.ok(described.includes('"enum":["new"]'));
  });

  it('is read on SIGHUP; one that is wrong changes nothing and is named', async (t) => {
    const [first, second] = [await createUpstream(hangAfter(['data: 1\n\n'])), await createUpstream(named('second'))];
    const folder = await mkdtemp(join(tmpdir(), 'gateway-'));
    t.after(async () => {
      await Promise.all([first.close(), second.close()]);
      await rm(folder, { recursive: true });
    });
    const file = join(folder, 'config.yaml');
    const write = (backend: string) => writeFileSync(file, `gateway:\n  port: 0\n  backends: [${backend}]\n`);
    write(first.url);
    const program = await run(t, {}, ['--config', file]);
    const url = await listening(program);
    const ask = () => fetch(`${url}/v1/completions`, { method: 'POST', body: '{"stream":true}' });
    const streaming = await ask();
    write('ftp://wrong');
    program.child.signal('SIGHUP');
    await until(
      () => program.output().includes('cannot reload the configuration; the old one stays in use'),
      'it says so',
    );
    assert.match(program.output(), /gateway\.backends\.0 is .*ftp:\/\/wrong/);
    write(second.url);
    program.child.signal('SIGHUP');
    await until(() => program.output().includes('configuration reloaded'), 'it is read');
    assert.deepEqual(await (await ask()).json(), { name: 'second' });
    first.received[0]!.response.end('data: [DONE]\n\n');
    assert.equal(await streaming.text(), 'data: 1\n\ndata: [DONE]\n\n');
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
  });
});
