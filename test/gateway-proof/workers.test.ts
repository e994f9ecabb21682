import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { restartWaitMs } from '../../gateway/workers/parent.ts';
import { run } from '../gateway/program.ts';
import { createUpstream, hangAfter, json, type Script } from '../gateway/upstream.ts';
import { bearer, folder, newKey, type TestKey } from '../gateway-keys/harness.ts';
import type { TestProgram } from '../support/program.ts';
import { until } from '../support/until.ts';

interface Line {
  msg: string;
  pid: number;
  [name: string]: unknown;
}

const lines = ({ log }: TestProgram) => log() as Line[];

const pids = (program: TestProgram, msg: string): Set<number> =>
  new Set(lines(program).flatMap((line) => (line.msg === msg ? [line.pid] : [])));

async function start(t: TestContext, script: Script, env: Record<string, string> = {}, workers = 2) {
  const upstream = await createUpstream(script);
  t.after(() => upstream.close());
  const program = await run(
    t,
    { CRYSTALKV_GATEWAY_PORT: '0', CRYSTALKV_GATEWAY_BACKENDS: `[${upstream.url}]`, ...env },
    ['--workers', String(workers)],
  );
  const ready = await until(() => lines(program).find(({ msg }) => msg === 'workers are listening'), 'all listen', {
    ms: 60_000,
  });
  return { upstream, program, url: String(ready['url']), metricsUrl: String(ready['metrics_url']) };
}

/** One request on a connection of its own: connections are what is handed out to the workers. */
function get(
  url: string,
  method = 'GET',
  body = '',
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, agent: false, headers: { connection: 'close', ...headers } }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const series = (text: string, name: string): number =>
  text
    .split('\n')
    .filter((line) => line.startsWith(name))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe('several processes on one port', () => {
  it('share the requests, and show the metrics of all of them whoever is asked', async (t) => {
    const { program, url, metricsUrl } = await start(t, json('{}'));
    assert.equal(metricsUrl, `${url}/metrics`);
    for (let i = 0; i < 20; i++) assert.equal((await get(`${url}/v1/models`)).status, 200);
    await until(() => lines(program).filter(({ msg }) => msg === 'request').length === 20, 'all are logged');
    assert.equal(pids(program, 'request').size, 2);
    for (let i = 0; i < 4; i++) {
      const { text } = await get(metricsUrl);
      assert.equal(series(text, 'crystalkv_gateway_requests_total{route="/v1/models",status="200",outcome="ok"}'), 20);
      assert.equal(series(text, 'crystalkv_gateway_workers'), 2);
      assert.equal(series(text, 'crystalkv_gateway_worker_restarts_total'), 0);
      assert.equal(
        text.split('\n').filter((line) => line.startsWith('# TYPE crystalkv_gateway_requests_total')).length,
        1,
      );
    }
  });

  it('show the state of a backend as one, not added up', async (t) => {
    const { url, metricsUrl, upstream } = await start(t, json('{}', 500), {
      CRYSTALKV_GATEWAY_BALANCE_RULE: 'kv_headroom',
      CRYSTALKV_GATEWAY_BALANCE_HEADROOM_INTERVAL_MS: '100',
      CRYSTALKV_GATEWAY_BREAKER_FAILURES: '1',
      CRYSTALKV_GATEWAY_BREAKER_OPEN_MS: '60000',
      CRYSTALKV_GATEWAY_HEALTH_INTERVAL_MS: '100',
      CRYSTALKV_GATEWAY_HEALTH_FAILURES: '1',
    });
    const value = async (name: string, labels: string) =>
      series((await get(metricsUrl)).text, `crystalkv_gateway_${name}{backend="${upstream.url}"${labels}}`);
    const breaker = async (state: string) => await value('breaker_state', `,state="${state}"`);
    assert.equal(await value('backend_healthy', ''), 1);
    assert.deepEqual([await breaker('closed'), await breaker('open')], [1, 0]);
    assert.equal((await get(`${url}/v1/completions`, 'POST', '{}')).status, 500);
    assert.deepEqual([await breaker('closed'), await breaker('open')], [1, 1]);
    for (let i = 0; i < 4; i++) await get(`${url}/v1/completions`, 'POST', '{}');
    assert.deepEqual([await breaker('closed'), await breaker('open')], [0, 1]);

    for (const share of [0.25, 0.5]) {
      upstream.metrics = `# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine="0"} ${share}\n`;
      await until(async () => (await value('backend_kv_free_ratio', '')) === 1 - share, `${1 - share} is free`);
    }
    for (let i = 0; i < 4; i++) assert.equal(await value('backend_kv_free_ratio', ''), 0.5);
    upstream.healthy = false;
    await until(async () => (await value('backend_healthy', '')) === 0, 'it is down');
  });

  it('a port of its own for metrics is shared too', async (t) => {
    const { url, metricsUrl } = await start(t, json('{}'), { CRYSTALKV_GATEWAY_METRICS_PORT: '0' });
    assert.notEqual(new URL(metricsUrl).port, new URL(url).port);
    for (let i = 0; i < 4; i++) assert.equal(series((await get(metricsUrl)).text, 'crystalkv_gateway_workers'), 2);
    assert.equal((await get(`${url}/metrics`)).status, 404);
  });

  it('one that dies is replaced, and the others go on', async (t) => {
    const { program, url, metricsUrl } = await start(t, json('{}'));
    const [first] = pids(program, 'listening');
    process.kill(first!, 'SIGKILL');
    const line = await until(() => lines(program).find(({ worker }) => worker === first), 'it is noticed');
    assert.deepEqual([line['signal'], line['wait_ms']], ['SIGKILL', 100]);
    await until(
      async () => series((await get(metricsUrl)).text, 'crystalkv_gateway_workers') === 2,
      'there are two again',
      { ms: 60_000 },
    );
    await until(() => pids(program, 'listening').size === 3, 'the new one has said so');
    for (let i = 0; i < 6; i++) assert.equal((await get(`${url}/v1/models`)).status, 200);
    assert.equal(series((await get(metricsUrl)).text, 'crystalkv_gateway_worker_restarts_total'), 1);
  });

  it('and waits longer each time when they die again and again', () => {
    assert.deepEqual([0, 1, 2, 3].map(restartWaitMs), [100, 200, 400, 800]);
    assert.equal(restartWaitMs(1000), 10_000);
  });

  it('SIGTERM drains all of them: streams end well, and no process is left', async (t) => {
    const { program, url, upstream } = await start(t, hangAfter(['data: 1\n\n']));
    const streams = Array.from({ length: 4 }, () => get(`${url}/v1/completions`, 'POST', '{"stream":true}'));
    await until(() => upstream.received.length === 4, 'all have begun');
    program.child.signal('SIGTERM');
    await until(() => pids(program, 'draining').size === 2, 'both drain');
    for (const { response } of upstream.received) response.end('data: [DONE]\n\n');
    for (const { text } of await Promise.all(streams)) assert.equal(text, 'data: 1\n\ndata: [DONE]\n\n');
    assert.equal(await program.ended(), 0);
    for (const pid of pids(program, 'listening')) assert.ok(!isAlive(pid));
  });

  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    it(`${name} that is sent to parent and workers alike drains as well`, async (t) => {
      const { program, url, upstream } = await start(t, hangAfter(['data: 1\n\n']));
      const answer = get(`${url}/v1/completions`, 'POST', '{"stream":true}');
      await until(() => upstream.received.length === 1, 'it has begun');
      for (const pid of [...pids(program, 'listening'), program.child.pid]) process.kill(pid, name);
      await until(() => pids(program, 'draining').size === 2, 'both drain');
      upstream.received[0]!.response.end('data: [DONE]\n\n');
      assert.equal((await answer).text, 'data: 1\n\ndata: [DONE]\n\n');
      assert.equal(await program.ended(), 0);
    });
  }

  it('the deadline of the drain holds for all of them', async (t) => {
    const { program, url, upstream } = await start(t, hangAfter(['data: 1\n\n']), {
      CRYSTALKV_GATEWAY_DRAIN_MS: '100',
    });
    const answer = get(`${url}/v1/completions`, 'POST', '{"stream":true}');
    await until(() => upstream.received.length === 1, 'it has begun');
    program.child.signal('SIGTERM');
    assert.match((await answer).text, /gateway_draining.*\n\ndata: \[DONE\]\n\n$/);
    assert.equal(await program.ended(), 0);
  });

  it('SIGHUP reaches all of them, and drops no request', async (t) => {
    const [first, second] = [
      await createUpstream(hangAfter(['data: 1\n\n'])),
      await createUpstream(json('{"second":1}')),
    ];
    const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-workers-'));
    t.after(async () => {
      await Promise.all([first.close(), second.close()]);
      rmSync(folder, { recursive: true });
    });
    const file = join(folder, 'config.yaml');
    const write = (backend: string) => writeFileSync(file, `gateway: { port: 0, backends: [${backend}] }\n`);
    write(first.url);
    const program = await run(t, {}, ['--config', file, '--workers', '2']);
    const ready = await until(() => lines(program).find(({ msg }) => msg === 'workers are listening'), 'all listen', {
      ms: 60_000,
    });
    const running = get(`${ready['url']}/v1/completions`, 'POST', '{"stream":true}');
    await until(() => first.received.length === 1, 'it has begun');
    write(second.url);
    program.child.signal('SIGHUP');
    await until(() => pids(program, 'configuration reloaded').size === 2, 'both have read it');
    assert.doesNotMatch(program.output(), /need a restart/);
    for (let i = 0; i < 6; i++) {
      assert.equal((await get(`${ready['url']}/v1/completions`, 'POST', '{}')).text, '{"second":1}');
    }
    first.received[0]!.response.end('data: [DONE]\n\n');
    assert.equal((await running).text, 'data: 1\n\ndata: [DONE]\n\n');
  });

  it('know of each other whose key a response was made for', async (t) => {
    const [owner, stranger] = [newKey('owner'), newKey('stranger')];
    const file = join(folder(t), 'keys.json');
    const store = createFileStore(file);
    for (const { entry } of [owner, stranger]) await store.add(entry);
    const keys = { CRYSTALKV_GATEWAY_KEYS_STORE: 'file', CRYSTALKV_GATEWAY_KEYS_FILE: file };
    const { program, url } = await start(t, json('{"id":"resp_1"}'), keys);
    const made = await get(`${url}/v1/responses`, 'POST', '{"model":"m"}', bearer(owner).headers);
    assert.equal(made.status, 200);
    const ask = (key: TestKey) => get(`${url}/v1/responses/resp_1`, 'GET', '', bearer(key).headers);
    await until(async () => (await ask(owner)).status === 200 && (await ask(owner)).status === 200, 'both know');
    for (let i = 0; i < 6; i++) assert.equal((await ask(owner)).status, 200);
    for (let i = 0; i < 4; i++) assert.equal((await ask(stranger)).status, 404);
    assert.equal(pids(program, 'request').size, 2);
  });

  it('none is left when the parent is killed', async (t) => {
    const { program } = await start(t, json('{}'));
    const workers = [...pids(program, 'listening')];
    program.child.signal('SIGKILL');
    await until(() => workers.every((pid) => !isAlive(pid)), 'they end too');
  });

  it('a port that is taken is said, and ends all with 1', async (t) => {
    const upstream = await createUpstream(json('{}'));
    t.after(() => upstream.close());
    const program = await run(t, { CRYSTALKV_GATEWAY_PORT: String(upstream.port) }, ['--workers=2']);
    assert.equal(await program.ended(), 1);
    assert.match(program.output(), /gateway: cannot listen on 127\.0\.0\.1:\d+: the port is in use/);
  });

  it('their number has bounds', async (t) => {
    const program = await run(t, {}, ['--workers', '0']);
    assert.equal(await program.ended(), 2);
    assert.match(program.output(), /gateway\.workers is 0: .*1.*\(from CRYSTALKV_GATEWAY_WORKERS\)/);
  });
});
