import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseMetrics, total } from '../../scripts/metrics/text.ts';
import { listening, run } from '../gateway/program.ts';
import { createUpstream, hang, hangAfter, json, rawClient, type Upstream } from '../gateway/upstream.ts';
import type { TestProgram } from '../support/program.ts';
import { until } from '../support/until.ts';

const CHAT = '/v1/chat/completions';
const EVENT = 'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n';

/** One place at the backend, and pauses before a retry that no test waits for. */
const ENV = {
  CRYSTALKV_GATEWAY_PORT: '0',
  CRYSTALKV_GATEWAY_ADMISSION_CONCURRENCY: '1',
  CRYSTALKV_GATEWAY_ADMISSION_EVENT_LOOP_DELAY_MS: '0',
  CRYSTALKV_GATEWAY_RETRIES_SAME_BACKEND: 'always',
  CRYSTALKV_GATEWAY_RETRIES_BACKOFF_MS: '60000',
  CRYSTALKV_GATEWAY_RETRIES_BACKOFF_MAX_MS: '600000',
};

describe('a client that leaves, with the gateway as a process of its own', () => {
  let upstream: Upstream;
  let program: TestProgram;
  const ends: (() => Promise<unknown>)[] = [];
  let url: string;
  before(async () => {
    upstream = await createUpstream(hang);
    program = await run(
      { after: (end) => void ends.push(end) },
      { ...ENV, CRYSTALKV_GATEWAY_BACKENDS: `[${upstream.url}]` },
    );
    url = await listening(program);
  });
  after(async () => {
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
    for (const end of ends) await end();
    await upstream.close();
  });
  beforeEach(() => {
    upstream.received.length = 0;
    upstream.arriving.length = 0;
  });

  const ask = (body: unknown, signal: AbortSignal) =>
    fetch(url + CHAT, { method: 'POST', body: JSON.stringify(body), signal });
  const read = async (name: string, labels: Record<string, string> = {}) =>
    total(parseMetrics(await (await fetch(`${url}/metrics`)).text()), `crystalkv_gateway_${name}`, labels);
  const over = () => until(async () => (await read('inflight')) === 0, 'nothing is left of the request');
  /** What is done while a client leaves ends in one abort at that stage. */
  async function leaves(stage: string, act: () => Promise<void>): Promise<void> {
    const aborts = await read('client_aborts_total', { stage });
    await act();
    await over();
    assert.equal(await read('client_aborts_total', { stage }), aborts + 1);
    assert.equal(await read('backend_outstanding'), 0);
  }

  for (const body of [{}, { stream: true }]) {
    const kind = body.stream ? 'a stream' : 'a whole answer';

    it(`while it sends its request for ${kind}: the backend never hears of it`, async () => {
      await leaves('upload', async () => {
        const client = await rawClient(Number(new URL(url).port));
        const half = JSON.stringify(body).slice(0, -1);
        client.write(`POST ${CHAT} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n${half}`);
        await until(async () => (await read('inflight')) === 1, 'the request has begun');
        client.socket.resetAndDestroy();
      });
      assert.equal(upstream.arriving.length, 0);
    });

    it(`before the first byte of ${kind}: the backend sees it`, async () => {
      upstream.script = hang;
      await leaves('waiting', async () => {
        const abort = new AbortController();
        const answer = ask(body, abort.signal);
        await until(() => upstream.received.length === 1, 'the backend has the request');
        abort.abort();
        await assert.rejects(answer);
        await until(() => upstream.received[0]!.aborted, 'the backend sees it break off');
      });
    });

    it(`in the middle of ${kind}: the backend sees it`, async () => {
      upstream.script = hangAfter([EVENT]);
      await leaves('streaming', async () => {
        const abort = new AbortController();
        const response = await ask(body, abort.signal);
        await response.body!.getReader().read();
        abort.abort();
        await until(() => upstream.received[0]!.aborted, 'the backend sees it break off');
      });
    });

    it(`in the queue for ${kind}: the place of the next is free, the backend never hears of it`, async () => {
      upstream.script = hang;
      const first = new AbortController();
      const running = assert.rejects(ask({}, first.signal));
      await until(() => upstream.received.length === 1, 'the only place is taken');
      const abort = new AbortController();
      const queued = assert.rejects(ask(body, abort.signal));
      await until(async () => (await read('queue_depth')) === 1, 'it waits');
      const aborts = await read('client_aborts_total', { stage: 'queued' });
      abort.abort();
      await queued;
      await until(async () => (await read('queue_depth')) === 0, 'it waits no more');
      assert.equal(await read('client_aborts_total', { stage: 'queued' }), aborts + 1);
      first.abort();
      await running;
      await over();
      assert.equal(upstream.received.length, 1);
    });

    it(`in the pause before ${kind} is tried again: there is no other try`, async () => {
      upstream.script = json('{}', 503);
      await leaves('backoff', async () => {
        const retries = await read('retries_total');
        const abort = new AbortController();
        const answer = assert.rejects(ask(body, abort.signal));
        await until(async () => (await read('retries_total')) === retries + 1, 'it is to be tried again');
        abort.abort();
        await answer;
      });
      assert.equal(upstream.received.length, 1);
    });
  }

  it('in the middle of an upload: the backend sees it', async () => {
    await leaves('waiting', async () => {
      const client = await rawClient(Number(new URL(url).port));
      client.write(
        'POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=x\r\n' +
          'Content-Length: 1000\r\n\r\n--x\r\n',
      );
      await until(() => upstream.arriving[0]?.bytes === 5, 'the backend has the first part');
      client.socket.resetAndDestroy();
      await until(() => upstream.arriving[0]!.aborted, 'the backend sees it break off');
    });
  });
});
