import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { ScriptedEngine } from './scripted-engine.ts';
import { eventually, readEvents, serve } from './serve.ts';
import { ids } from './tokenizer-folders.ts';

const messages = [{ role: 'user', content: 'Q1 cat' }];
/** Two tokens, and then nothing until somebody stops it. */
const hanging = () => ids('cat dog');

describe('a client that leaves', () => {
  for (const stream of [true, false]) {
    it(`aborts all its choices in the engine, ${stream ? 'streaming' : 'not streaming'}`, async () => {
      const engine = new ScriptedEngine(hanging);
      const { url, http } = await serve(engine);
      const leave = new AbortController();
      const request = fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ messages, n: 3, stream }),
        signal: leave.signal,
      }).then((response) => response.text());
      await eventually(() => engine.running === 3, 'the engine runs three sequences');
      leave.abort();
      await assert.rejects(request);
      await eventually(() => engine.running === 0, 'the engine runs nothing');
      assert.equal(engine.aborted.length, 3);
      assert.match(await http.registry.metrics(), /crystalkv_engine_client_aborts_total{[^}]*} 1/);
    });
  }

  it('is not what a finished answer looks like', async () => {
    const engine = new ScriptedEngine(() => ids('cat <eos>'));
    const { post, http } = await serve(engine);
    await (await post('/v1/chat/completions', { messages, stream: true })).text();
    await http.drain();
    assert.deepEqual(engine.aborted, []);
    assert.match(await http.registry.metrics(), /crystalkv_engine_client_aborts_total{[^}]*} 0/);
  });
});

describe('a client that reads slowly', () => {
  it('costs little memory, and gets all of its text in fewer chunks', async () => {
    const TOKENS = 150_000;
    const long = [...Array(TOKENS).fill(ids('cat')[0]), ...ids('<eos>')] as number[];
    const engine = new ScriptedEngine(() => long, { maxModelLength: TOKENS + 100 });
    engine.tokensPerTurn = 2000;
    const { server, port } = await serve(engine);
    const accepted = once(server, 'connection');
    const client = connect(port, '127.0.0.1');
    client.pause();
    const [socket] = (await accepted) as [Socket];
    const body = JSON.stringify({ messages, stream: true });
    const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close`;
    client.write(`${head}\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    await eventually(() => engine.requests.length === 1 && engine.running === 0, 'everything is generated');
    assert.ok(socket.writableLength < 2 ** 20, `${socket.writableLength} bytes wait for the socket`);

    let text = '';
    client.setEncoding('utf8').on('data', (data) => {
      text += data;
    });
    client.resume();
    await once(client, 'close');
    const chunks = text.match(/data: {.*}/g)!.map((line) => JSON.parse(line.slice('data: '.length)));
    const reasoning = chunks.map((chunk) => chunk.choices[0].delta.reasoning ?? '').join('');
    assert.equal(reasoning.length, TOKENS * ' cat'.length - 1);
    assert.ok(chunks.length < TOKENS / 2, `${chunks.length} chunks`);
    assert.match(text, /data: \[DONE\]/);
  });
});

describe('an engine that fails', () => {
  it('ends a stream with an error and [DONE], and turns health and new requests to 503', async () => {
    const engine = new ScriptedEngine(hanging);
    const { post, url } = await serve(engine);
    const response = await post('/v1/chat/completions', { messages, stream: true });
    engine.fail(new Error('the worker died'));
    const events = await readEvents(response);
    assert.equal(events.at(-1), '[DONE]');
    const { error } = events.at(-2) as { error: Record<string, unknown> };
    assert.equal(error['type'], 'InternalServerError');
    assert.equal(error['code'], 500);
    assert.equal((await fetch(`${url}/health`)).status, 503);
    const refused = await post('/v1/chat/completions', { messages });
    assert.equal(refused.status, 503);
    assert.match(await refused.text(), /The engine has failed/);
  });

  it('answers 500 where no byte has been sent', async () => {
    const engine = new ScriptedEngine(() => []);
    const { post } = await serve(engine);
    for (const stream of [true, false]) {
      const pending = post('/v1/chat/completions', { messages, stream });
      await eventually(() => engine.running === 1, 'the engine runs it');
      await engine.close();
      const response = await pending;
      assert.equal(response.status, 500);
      const { error } = (await response.json()) as { error: Record<string, unknown> };
      assert.deepEqual([error['type'], error['code']], ['InternalServerError', 500]);
    }
  });

  it('aborts the other choices when one is given up', async () => {
    const engine = new ScriptedEngine((request) => (request.choiceIndex === 0 ? [] : hanging()));
    const { post, http } = await serve(engine);
    const pending = post('/v1/chat/completions', { messages, n: 2 });
    await eventually(() => engine.running === 2, 'the engine runs both');
    await http.close();
    assert.equal((await pending).status, 500);
    await eventually(() => engine.running === 0, 'the engine runs nothing');
  });
});

describe('a server that drains', () => {
  it('finishes what runs and refuses what comes', async () => {
    const engine = new ScriptedEngine(() => ids('cat <eos>'));
    engine.paused = true;
    const { post, http, url } = await serve(engine);
    const running = post('/v1/chat/completions', { messages });
    await eventually(() => engine.running === 1, 'the engine runs it');
    const drained = http.drain();
    assert.equal((await post('/v1/chat/completions', { messages })).status, 503);
    assert.equal((await fetch(`${url}/health`)).status, 503);
    engine.resume();
    assert.equal((await running).status, 200);
    await drained;
  });
});
