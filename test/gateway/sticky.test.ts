import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createResponseIds, idReader } from '../../gateway/fleet/response-ids.ts';
import { fleet } from './fleet-harness.ts';
import { type ErrorAnswer, post, setup, startGateway } from './harness.ts';
import { responsesUpstream } from './responses-upstream.ts';

const make = async (gateway: { url: string }, body: object = { model: 'm', input: 'x' }) => {
  const text = await (await post(gateway as never, '/v1/responses', body)).text();
  return /resp_\w+/.exec(text)![0];
};

describe('stateful paths', () => {
  it('reach the backend that made the response: get, cancel, and what goes on from it', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, ['a', 'b', 'c'].map(responsesUpstream));
    for (const stream of [false, true, false, true]) {
      const id = await make(gateway, { model: 'm', input: 'x', stream });
      const name = id.at('resp_'.length)!;
      const before = counts();
      const got = await fetch(`${gateway.url}/v1/responses/${id}`);
      assert.deepEqual(await got.json(), { id, from: name, path: `/v1/responses/${id}`, method: 'GET' });
      const cancelled = await post(gateway, `/v1/responses/${id}/cancel`, '');
      assert.equal(((await cancelled.json()) as { from: string }).from, name);
      const next = await make(gateway, { model: 'm', input: 'y', previous_response_id: id });
      assert.equal(next.at('resp_'.length), name);
      const asked = counts().map((count, i) => count - before[i]!);
      assert.deepEqual(
        asked,
        ['a', 'b', 'c'].map((other) => (other === name ? 3 : 0)),
      );
    }
    assert.equal(upstreams.length, 3);
  });

  it('an unknown response is a 404 in OpenAI’s shape', async (t) => {
    const { gateway } = await fleet(t, ['a', 'b'].map(responsesUpstream));
    for (const response of [
      await fetch(`${gateway.url}/v1/responses/resp_none`),
      await post(gateway, '/v1/responses/resp_none/cancel', ''),
    ]) {
      assert.equal(response.status, 404);
      const { error } = (await response.json()) as ErrorAnswer;
      assert.deepEqual(
        [error.message, error.type, error.code],
        ["Response with id 'resp_none' not found.", 'gateway_response_not_found', 404],
      );
    }
  });

  it('what this gateway did not see made is asked for everywhere', async (t) => {
    const { gateway, upstreams, counts } = await fleet(t, ['a', 'b'].map(responsesUpstream));
    const id = await make(gateway);
    const other = await startGateway({ backends: upstreams.map(({ url }) => url) });
    t.after(() => other.gateway.close());
    const headers = { authorization: 'Bearer key' };
    for (let i = 0; i < 2; i++) {
      const got = await fetch(`${other.gateway.url}/v1/responses/${id}`, { headers });
      assert.equal(((await got.json()) as { id: string }).id, id);
    }
    // Made, asked for at both, got twice.
    assert.equal(counts()[0]! + counts()[1]!, 5);
    for (const { received } of upstreams) {
      for (const { method, headers: got } of received) {
        if (method === 'GET') assert.equal(got['authorization'], 'Bearer key');
      }
    }
  });

  it('a response of a backend that is gone is a 404', async (t) => {
    const { gateway, upstreams, reload } = await fleet(t, ['a', 'b', 'c'].map(responsesUpstream));
    const id = await make(gateway);
    const maker = 'abc'.indexOf(id.at('resp_'.length)!);
    reload({ backends: upstreams.filter((_, i) => i !== maker).map(({ url }) => url) });
    assert.equal((await fetch(`${gateway.url}/v1/responses/${id}`)).status, 404);
  });

  it('a single backend is asked whatever it is, and answers itself', async (t) => {
    const { gateway } = await setup(t, responsesUpstream('a'));
    const id = await make(gateway);
    assert.equal((await fetch(`${gateway.url}/v1/responses/${id}`)).status, 200);
    const response = await fetch(`${gateway.url}/v1/responses/other`);
    assert.deepEqual([response.status, await response.text()], [404, '{"error":{}}']);
  });
});

describe('the memory of responses', () => {
  it('forgets after its time, and the oldest when there are too many; use makes young', () => {
    let now = 0;
    const ids = createResponseIds(
      () => ({ remember_s: 10, remember_max: 2 }),
      () => now,
    );
    const [x, y, z] = ['x', 'y', 'z'].map((backend) => ({ backend, key: undefined }));
    ids.remember('a', x!);
    ids.remember('b', y!);
    assert.equal(ids.find('a'), x);
    ids.remember('c', z!);
    assert.deepEqual([ids.find('a'), ids.find('b'), ids.find('c')], [x, undefined, z]);
    now = 9_999;
    assert.equal(ids.find('a'), x);
    now = 10_000;
    assert.equal(ids.find('c'), undefined);
    now = 20_000;
    assert.equal(ids.find('a'), undefined);
  });

  it('leaves a response to the key that it is of', () => {
    let now = 0;
    const ids = createResponseIds(
      () => ({ remember_s: 10, remember_max: 2 }),
      () => now,
    );
    const [mine, moved, other] = [
      { backend: 'x', key: 'k' },
      { backend: 'y', key: 'k' },
      { backend: 'z', key: 'l' },
    ];
    ids.remember('a', mine!);
    ids.remember('a', other!);
    assert.equal(ids.find('a'), mine);
    ids.remember('a', moved!);
    assert.equal(ids.find('a'), moved);
    now = 10_000;
    ids.remember('a', other!);
    assert.equal(ids.find('a'), other);
  });

  it('reads the id wherever the pieces break, once, and gives up in time', () => {
    const text = 'event: response.created\ndata: {"response":{"id": "resp_1","x":{"id":"msg_2"}}}\n\n';
    for (let at = 1; at < text.length; at++) {
      const found: string[] = [];
      const read = idReader((id) => found.push(id));
      for (const piece of [text.slice(0, at), text.slice(at)]) read(Buffer.from(piece));
      assert.deepEqual(found, ['resp_1'], `broken at ${at}`);
    }
    const found: string[] = [];
    const read = idReader((id) => found.push(id));
    read(Buffer.alloc(10_000, 'x'));
    read(Buffer.from('"id":"late"'));
    assert.deepEqual(found, []);
  });
});
