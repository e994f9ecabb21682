import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { ErrorAnswer } from '../gateway/harness.ts';
import { listening, run } from '../gateway/program.ts';
import { refusedUrl } from '../gateway/upstream.ts';
import type { TestProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { chunk, createFaulty, type Fault, type Faulty, JSON_HEAD, STREAM_HEAD } from './faulty.ts';

const EVENT = 'data: {"choices":[{"index":0,"delta":{"content":"hé"}}]}\n\n';
const DONE = 'data: [DONE]\n\n';
const CHAT = '/v1/chat/completions';

/** Never answers, or has nothing more to say: the other side has to end it. */
const nothing: Fault = () => {};
const says =
  (text: string, then: 'stay' | 'end' | 'reset' = 'stay'): Fault =>
  ({ socket }) => {
    socket.write(text, () => {
      if (then === 'end') socket.end();
      if (then === 'reset') socket.resetAndDestroy();
    });
  };

/** What happens to the backend, and what a client of a whole answer and of a stream gets. */
const FAULTS: readonly {
  name: string;
  fault: Fault;
  whole: number | 'reset';
  stream: number | 'told' | 'reset';
  type?: string;
}[] = [
  { name: 'hangs before the first byte', fault: nothing, whole: 504, stream: 504 },
  {
    name: 'resets before the first byte',
    fault: ({ socket }) => void socket.resetAndDestroy(),
    whole: 502,
    stream: 502,
  },
  { name: 'closes before the first byte', fault: ({ socket }) => void socket.end(), whole: 502, stream: 502 },
  { name: 'sends garbage for a head', fault: says('\x16\x03\x01 not http\r\n\r\n', 'end'), whole: 502, stream: 502 },
  { name: 'sends half a head', fault: says('HTTP/1.1 200 OK\r\ncontent-ty', 'end'), whole: 502, stream: 502 },
  { name: 'hangs in mid-stream', fault: says(STREAM_HEAD + chunk(EVENT)), whole: 'reset', stream: 'told' },
  {
    name: 'sends half an event and closes',
    fault: says(STREAM_HEAD + chunk(EVENT) + chunk('data: {"cho'), 'end'),
    whole: 'reset',
    stream: 'told',
  },
  {
    name: 'sends half a character and resets',
    fault: says(`${STREAM_HEAD}${chunk(EVENT)}7\r\ndata: \xe6`, 'reset'),
    whole: 'reset',
    stream: 'told',
  },
  { name: 'resets in mid-stream', fault: says(STREAM_HEAD + chunk(EVENT), 'reset'), whole: 'reset', stream: 'told' },
  {
    name: 'sends garbage in mid-stream',
    fault: says(`${STREAM_HEAD}${chunk(EVENT)}zz\r\nwhat\r\n`),
    whole: 'reset',
    stream: 'told',
  },
  {
    name: 'closes an unframed stream without [DONE]',
    fault: says(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n${EVENT}`, 'end'),
    whole: 'reset',
    stream: 'told',
  },
];

describe('faults of a backend, with the gateway as a process of its own', () => {
  let faulty: Faulty;
  let program: TestProgram;
  const ends: (() => Promise<unknown>)[] = [];
  let url: string;
  before(async () => {
    faulty = await createFaulty(nothing);
    program = await run(
      { after: (end) => void ends.push(end) },
      {
        CRYSTALKV_GATEWAY_PORT: '0',
        CRYSTALKV_GATEWAY_BACKENDS: `[${faulty.url}]`,
        CRYSTALKV_GATEWAY_TIMEOUTS_FIRST_BYTE_MS: '300',
        CRYSTALKV_GATEWAY_TIMEOUTS_IDLE_MS: '300',
        CRYSTALKV_GATEWAY_RETRIES_MAX: '0',
      },
    );
    url = await listening(program);
  });
  after(async () => {
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
    for (const end of ends) await end();
    await faulty.close();
  });

  const ask = (body: unknown) => fetch(url + CHAT, { method: 'POST', body: JSON.stringify(body) });
  const inflight = async () =>
    /crystalkv_gateway_inflight(?:\{[^}]*\})? (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1];

  for (const { name, fault, whole, stream } of FAULTS) {
    it(`a backend that ${name}: a stream gets ${stream}`, async () => {
      faulty.fault = fault;
      const response = await ask({ stream: true });
      if (typeof stream === 'number') {
        assert.equal(response.status, stream);
        const { error } = (await response.json()) as ErrorAnswer;
        assert.match(error.type, /^gateway_upstream_(broken|timeout)$/);
      } else {
        assert.equal(response.status, 200);
        const text = await response.text();
        assert.ok(text.startsWith(EVENT), text);
        const events = text.split('\n\n').filter((event) => event !== '');
        assert.equal(events.at(-1), 'data: [DONE]');
        assert.match(events.at(-2)!, /^data: \{"error":.*gateway_upstream_(broken|timeout)/);
        assert.equal(text.split('[DONE]').length, 2);
      }
      await faulty.exchanges.at(-1)!.closed;
      await until(async () => (await inflight()) === '0', 'nothing is left of the request');
    });

    it(`a backend that ${name}: a whole answer gets ${whole}`, async () => {
      faulty.fault = ({ socket, closed }) => {
        // The same, as JSON.
        const write = socket.write.bind(socket);
        socket.write = ((text: string, done?: () => void) =>
          write(
            text.replace(STREAM_HEAD, JSON_HEAD).replace('text/event-stream', 'application/json'),
            done,
          )) as typeof socket.write;
        return fault({ socket, closed });
      };
      const answer = ask({});
      if (typeof whole === 'number') assert.equal((await answer).status, whole);
      // Without a length or chunks an end cannot be told from a break: that is all HTTP/1.0 servers can do.
      else if (name.includes('unframed')) assert.equal(await (await answer).text(), EVENT);
      else await assert.rejects(async () => (await answer).text());
      await faulty.exchanges.at(-1)!.closed;
      await until(async () => (await inflight()) === '0', 'nothing is left of the request');
    });
  }

  it('a backend that answers 500 with HTML: the client gets just that', async () => {
    const html = '<html><h1>Internal Server Error</h1></html>';
    faulty.fault = says(
      `HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\ncontent-length: ${html.length}\r\n\r\n${html}`,
    );
    for (const body of [{}, { stream: true }]) {
      const response = await ask(body);
      assert.deepEqual([response.status, response.headers.get('content-type')], [500, 'text/html']);
      assert.equal(await response.text(), html);
    }
  });

  it('a whole stream passes after all that', async () => {
    faulty.fault = says(`${STREAM_HEAD}${chunk(EVENT)}${chunk(DONE)}0\r\n\r\n`);
    assert.equal(await (await ask({ stream: true })).text(), EVENT + DONE);
  });

  it('logs hold ids and outcomes, and nothing of what was said', async () => {
    faulty.fault = says(`${STREAM_HEAD}${chunk('data: secret-answer\n\n')}${chunk(DONE)}0\r\n\r\n`);
    const headers = {
      authorization: 'Bearer secret-key',
      'x-api-key': 'secret-key',
      cookie: 'secret-cookie',
      'x-request-id': 'log-me',
    };
    const body = JSON.stringify({
      model: 'm',
      stream: true,
      messages: [{ role: 'user', content: 'secret-prompt' }],
      user: 'secret-user',
    });
    await (await fetch(`${url}${CHAT}?secret-query=1`, { method: 'POST', body, headers })).text();
    await (await fetch(`${url}/secret-path`, { method: 'POST', body, headers })).text();
    await (await fetch(url + CHAT, { method: 'POST', body: body.slice(0, -1), headers })).text();
    await (await fetch(url + CHAT, { method: 'POST', body: '{"crystal_kv":"secret-option"}', headers })).text();
    const lines = () =>
      program
        .output()
        .split('\n')
        .filter((line) => line.includes('"log-me"'));
    await until(() => lines().length === 4, 'all four are logged');
    const [first] = lines().map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.equal(first!['request_id'], 'log-me');
    assert.equal(first!['outcome'], 'ok');
    assert.equal(first!['route'], CHAT);
    assert.doesNotMatch(program.output(), /secret/);
    assert.doesNotMatch(await (await fetch(`${url}/metrics`)).text(), /secret/);
  });
});

describe('a backend that refuses connections', () => {
  it('is a 502, at once, streaming or not', async (t) => {
    const program = await run(t, {
      CRYSTALKV_GATEWAY_PORT: '0',
      CRYSTALKV_GATEWAY_BACKENDS: `[${await refusedUrl()}]`,
    });
    const url = await listening(program);
    for (const stream of [false, true]) {
      const response = await fetch(url + CHAT, { method: 'POST', body: JSON.stringify({ stream }) });
      assert.ok([502, 503].includes(response.status), String(response.status));
      assert.match(((await response.json()) as ErrorAnswer).error.type, /^gateway_/);
    }
  });
});
