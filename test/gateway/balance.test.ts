import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseHeadroom } from '../../gateway/fleet/headroom.ts';
import { prefixHash } from '../../gateway/fleet/prefix.ts';
import { sessionHash } from '../../gateway/fleet/session-key.ts';
import { scanDocument } from '../../gateway/json/scan.ts';
import { ScriptedEngine, startService } from '../policy-service/scripted-engine.ts';
import { until } from '../support/until.ts';
import { fleet, named, whoAnswers } from './fleet-harness.ts';
import { chat, metric, post } from './harness.ts';
import { createUpstream, hang } from './upstream.ts';

/** On a busy machine a check may be late, and what it says is not the subject here. */
const NO_CHECKS = { health: { interval_ms: 0 } };

const user = (content: string) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });
const system = (content: string) => ({ role: 'system', content });

describe('the first part of a conversation', () => {
  const hash = (body: unknown, most = 2048) => {
    const bytes = Buffer.from(JSON.stringify(body));
    return prefixHash(bytes, scanDocument(bytes), most);
  };

  it('is the same in all its turns', () => {
    const first = { model: 'm', messages: [system('be kind'), user('hello')] };
    const second = { model: 'm', messages: [...first.messages, assistant('hi'), user('more')], stream: true };
    assert.notEqual(hash(first), undefined);
    assert.equal(hash(first), hash(second));
    const items = { model: 'm', instructions: 'x', input: [user('hello')] };
    assert.equal(hash(items), hash({ ...items, input: [...items.input, assistant('hi'), user('more')] }));
  });

  it('differs with the first question, the system prompt and the model', () => {
    const of = (model: string, s: string, u: string) => hash({ model, messages: [system(s), user(u)] });
    const all = [of('m', 'a', 'x'), of('m', 'a', 'y'), of('m', 'b', 'x'), of('n', 'a', 'x')];
    assert.equal(new Set(all).size, 4);
    assert.notEqual(hash({ system: 'a', messages: [user('x')] }), hash({ system: 'b', messages: [user('x')] }));
  });

  it('is told apart by the first question, however long the system prompt before it is', () => {
    const long = 'rules '.repeat(500);
    const of = (question: string) => hash({ messages: [system(long), user(question)] }, 1000);
    assert.notEqual(of('x'), of('y'));
    assert.notEqual(of(`${long}x`), of(`${long}y`));
    const prompt = (rest: string) => hash({ prompt: `${long}${rest}` }, 1000);
    assert.equal(prompt('x'), prompt('y'));
  });

  it('is the same whether texts are strings or blocks, with marks for a cache or without, and without volatile blocks', () => {
    const block = (text: string, more = {}) => ({ type: 'text', text, ...more });
    const billing = (n: number) => block(`x-anthropic-billing-header: cch=${n};`);
    const of = (first: unknown, ...systems: unknown[]) =>
      hash({ model: 'm', system: systems, messages: [{ role: 'user', content: first }] });
    const plain = of('task', block('You are an agent.'));
    assert.equal(of([block('task')], block('You are an agent.')), plain);
    assert.equal(of([block('task', { cache_control: { type: 'ephemeral' } })], block('You are an agent.')), plain);
    assert.equal(of('task', billing(1), block('You are an agent.', { cache_control: {} })), plain);
    assert.notEqual(of('other', billing(1), block('You are an agent.')), plain);
    const inline = (n: number) => hash({ messages: [system(billing(n).text), system('be kind'), user('x')] });
    assert.equal(inline(1), inline(2));
  });

  it('is found in a body of megabytes without reading it all', () => {
    const first = { role: 'user', content: [...Array(100_000).keys()] };
    const of = (...more: unknown[]) => hash({ messages: [system('x'), first, ...more] });
    assert.equal(of(), of(assistant('y'), user('z')));
  });

  it('of a text is its beginning; of a body without a conversation there is none', () => {
    assert.notEqual(hash({ prompt: 'a' }), hash({ prompt: 'b' }));
    assert.notEqual(hash({ input: 'a' }), hash({ input: 'b' }));
    assert.equal(hash({ model: 'm' }), undefined);
    for (const messages of [[], null, 7, [1, 'two'], [{ role: 7 }]]) assert.equal(typeof hash({ messages }), 'number');
  });
});

describe('the name of a conversation', () => {
  const hash = (body: unknown, headers = {}) => {
    const bytes = Buffer.from(JSON.stringify(body));
    return sessionHash(bytes, scanDocument(bytes), headers, 'x-session-id');
  };

  it('is that of the first that gives one: prompt_cache_key, metadata.user_id, the header, user', () => {
    const header = { 'x-session-id': 's' };
    const all = { prompt_cache_key: 'p', metadata: { user_id: 'm' }, user: 'u' };
    assert.equal(hash(all, header), hash({ user: 'p' }));
    assert.equal(hash({ ...all, prompt_cache_key: '' }, header), hash({ user: 'm' }));
    assert.equal(hash({ ...all, prompt_cache_key: 7, metadata: { user_id: null } }, header), hash({ user: 's' }));
    assert.equal(hash({ metadata: 'x', user: 'u' }), hash({ user: 'u' }));
    assert.notEqual(hash({ user: 'u' }), hash({ user: 'v' }));
    for (const none of [{}, { user: 'x'.repeat(5000) }, { metadata: {} }, { user: ['u'] }])
      assert.equal(hash(none), undefined);
  });
});

describe('prefix affinity', () => {
  const RULE = { balance: { rule: 'prefix_affinity' }, ...NO_CHECKS };

  it('turns of one conversation reach the same backend; conversations spread', async (t) => {
    const { gateway, counts } = await fleet(t, ['a', 'b', 'c'].map(named), RULE);
    for (let n = 0; n < 24; n++) {
      const messages = [user(`question ${n}`)];
      const first = await whoAnswers(gateway, { messages });
      for (let turn = 0; turn < 2; turn++) {
        messages.push(assistant('answer'), user('and then?'));
        assert.equal(await whoAnswers(gateway, { messages }), first);
      }
    }
    for (const count of counts()) assert.ok(count >= 6, `each gets some of 72: ${counts().join()}`);
  });

  it('a conversation stays where load has moved it to', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [hang, hang], RULE);
    const abort = new AbortController();
    const same = { prompt_cache_key: 'one', messages: [user('x')] };
    const running: Promise<unknown>[] = [];
    for (let i = 1; i <= 5; i++) {
      running.push(chat(gateway, same, { signal: abort.signal }).catch(() => {}));
      await until(() => counts()[0]! + counts()[1]! === i, `${i} are sent`);
    }
    const moved = counts()[0] === 1 ? 0 : 1;
    assert.deepEqual([...counts()].sort(), [1, 4]);
    abort.abort();
    await Promise.all(running);
    for (const [at, upstream] of upstreams.entries()) upstream.script = named(`${at}`);
    await until(async () => (await metric(gateway, 'crystalkv_gateway_inflight')) === 0, 'none runs');
    for (let i = 0; i < 3; i++) assert.equal(await whoAnswers(gateway, same), `${moved}`);
  });

  it('a backend that goes moves only its own conversations', async (t) => {
    const { gateway, upstreams, reload } = await fleet(t, ['a', 'b', 'c'].map(named), RULE);
    const ask = (n: number) => whoAnswers(gateway, { messages: [user(`question ${n}`)] });
    const before = [];
    for (let n = 0; n < 20; n++) before.push(await ask(n));
    reload({ ...RULE, backends: [upstreams[0]!.url, upstreams[1]!.url] });
    for (let n = 0; n < 20; n++) {
      const now = await ask(n);
      if (before[n] === 'c') assert.ok(now === 'a' || now === 'b');
      else assert.equal(now, before[n]);
    }
  });

  it('load is bounded: what is above the share goes to the next', async (t) => {
    const { gateway, counts } = await fleet(t, [hang, hang], RULE);
    const abort = new AbortController();
    const same = { messages: [user('the same for all')] };
    const answers: Promise<unknown>[] = [];
    for (let i = 1; i <= 10; i++) {
      answers.push(chat(gateway, same, { signal: abort.signal }).catch(() => {}));
      await until(() => counts()[0]! + counts()[1]! === i, `${i} are sent`);
    }
    const [a, b] = counts();
    // At most 1.25 times the mean of 5.5 that the eleventh would make.
    assert.ok(Math.max(a!, b!) <= 7 && Math.max(a!, b!) >= 5, `${a} and ${b}`);
    abort.abort();
    await Promise.all(answers);
  });

  it('requests without a conversation go to the least busy', async (t) => {
    const { gateway, counts } = await fleet(t, [named('a'), named('b')], RULE);
    for (let i = 0; i < 4; i++) await post(gateway, '/tokenize', { prompt: 'x' });
    assert.deepEqual(counts(), [2, 2]);
  });
});

describe('KV headroom', () => {
  const RULE = { balance: { rule: 'kv_headroom', headroom_interval_ms: 100 }, ...NO_CHECKS };
  const usage = (share: number, waiting = 0) =>
    [
      '# TYPE vllm:kv_cache_usage_perc gauge',
      `vllm:kv_cache_usage_perc{engine="0",model_name="m"} ${share}`,
      `vllm:num_requests_waiting{engine="0",model_name="m"} ${waiting}`,
    ].join('\n');
  const free = (url: string) => `crystalkv_gateway_backend_kv_free_ratio{backend="${url}"}`;

  it('the backend whose pool has room is preferred, as its own metrics say', async (t) => {
    const { gateway, upstreams } = await fleet(t, [named('a'), named('b')], RULE);
    upstreams[0]!.metrics = usage(0.97);
    upstreams[1]!.metrics = usage(0.3);
    const known = (at: number, value: number) =>
      until(async () => (await metric(gateway, free(upstreams[at]!.url))) === value, `${at} has ${value} free`);
    await known(0, 1 - 0.97);
    await known(1, 1 - 0.3);
    for (let i = 0; i < 5; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
    upstreams[0]!.metrics = usage(0.2);
    upstreams[1]!.metrics = usage(0.2, 3);
    await known(0, 1 - 0.2);
    await known(1, 1 - 0.2);
    for (let i = 0; i < 5; i++) assert.equal(await whoAnswers(gateway, {}), 'a');
  });

  it('with room in all, the least outstanding requests decide; where none has room, the freest', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, [named('a'), named('b')], RULE);
    for (const upstream of upstreams) upstream.metrics = usage(0.5);
    for (const { url } of upstreams) {
      await until(async () => (await metric(gateway, free(url))) === 0.5, 'known');
    }
    for (let i = 0; i < 6; i++) await whoAnswers(gateway, {});
    assert.deepEqual(counts(), [3, 3]);
    upstreams[0]!.metrics = usage(0.99, 5);
    upstreams[1]!.metrics = usage(0.93, 5);
    await until(async () => (await metric(gateway, free(upstreams[1]!.url)))! < 0.1, 'known');
    await until(async () => (await metric(gateway, free(upstreams[0]!.url)))! < 0.1, 'known');
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
  });

  it('the policy service beside a backend is asked first', async (t) => {
    const upstreams = [await createUpstream(named('a')), await createUpstream(named('b'))];
    upstreams[0]!.metrics = usage(0.01);
    upstreams[1]!.metrics = usage(0.5);
    const service = await startService();
    const engine = new ScriptedEngine(service.address);
    await engine.greet({ lockstep: false });
    engine.tell(1, [], { freeBlocks: 2, totalBlocks: 100, waiting: 1 });
    t.after(async () => {
      engine.close();
      await service.close();
      await Promise.all(upstreams.map((upstream) => upstream.close()));
    });
    const { gateway } = await fleet(t, [], {
      ...RULE,
      backends: [{ url: upstreams[0]!.url, policyAddress: service.address }, { url: upstreams[1]!.url }],
    });
    await until(async () => (await metric(gateway, free(upstreams[0]!.url))) === 0.02, 'the service is asked');
    await until(async () => (await metric(gateway, free(upstreams[1]!.url))) === 0.5, 'the other’s metrics are');
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'b');
    engine.tell(2, [], { freeBlocks: 90, totalBlocks: 100, waiting: 0 });
    upstreams[1]!.metrics = usage(0.98, 1);
    await until(async () => (await metric(gateway, free(upstreams[0]!.url))) === 0.9, 'room again');
    await until(async () => (await metric(gateway, free(upstreams[1]!.url)))! < 0.1, 'none there');
    for (let i = 0; i < 4; i++) assert.equal(await whoAnswers(gateway, {}), 'a');
  });

  it('metrics of several engines count together; without usage nothing is known', () => {
    const text = `${usage(0.2, 1)}\nvllm:kv_cache_usage_perc{engine="1"} 0.6\nvllm:num_requests_waiting{engine="1"} 2\n`;
    assert.deepEqual(parseHeadroom(text, 5), { kind: 'known', freeShare: 0.6, waiting: 3, at: 5 });
    assert.deepEqual(parseHeadroom('vllm:gpu_cache_usage_perc 1', 5), {
      kind: 'known',
      freeShare: 0,
      waiting: 0,
      at: 5,
    });
    for (const none of ['', 'vllm:kv_cache_usage_perc NaN', '<html>']) assert.equal(parseHeadroom(none), undefined);
  });
});
