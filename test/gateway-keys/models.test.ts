import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Gateway } from '../../gateway/gateway.ts';
import { createUpstream, json, type Script } from '../gateway/upstream.ts';
import { bearer, newKey, setupKeyed, type TestKey } from './harness.ts';

const free = newKey('free');
const limited = newKey('limited', { models: ['small', 'nick', 'gone'] });
const KEYS = [free, limited];
const ALIASES = { nick: 'org/large', other: 'org/large' };

/** A server of these models, which says what it is asked for one of them. */
function server(...ids: string[]): Script {
  return (received) => {
    const { url } = received;
    const answer =
      url === '/v1/models'
        ? { object: 'list', data: ids.map((id) => ({ id, object: 'model' })) }
        : { object: 'model', asked: url };
    return json(JSON.stringify(answer))(received);
  };
}

const get = (gateway: Gateway, path: string, key: TestKey) => fetch(`${gateway.url}${path}`, bearer(key));

async function idsFor(gateway: Gateway, key: TestKey): Promise<string[]> {
  const { object, data } = (await (await get(gateway, '/v1/models', key)).json()) as {
    object: string;
    data: { id: string }[];
  };
  assert.equal(object, 'list');
  return data.map(({ id }) => id);
}

describe('the models that a key sees', () => {
  it('are those that it may use, of all backends, by the names that it may use', async (t) => {
    const second = await createUpstream(server('org/large', 'tiny'));
    const first = await createUpstream(server('small', 'tiny'));
    t.after(() => Promise.all([first.close(), second.close()]));
    const { gateway } = await setupKeyed(t, server(), KEYS, {
      backends: [first.url, second.url],
      models: { aliases: ALIASES, learn: false },
    });
    assert.deepEqual(await idsFor(gateway, free), ['small', 'tiny', 'org/large', 'nick', 'other']);
    assert.deepEqual(await idsFor(gateway, limited), ['small', 'nick']);
  });

  it('are those of a single backend too, whose list passes to the byte for a key without a list', async (t) => {
    const { gateway, upstream } = await setupKeyed(t, server('small', 'large'), KEYS);
    assert.deepEqual(await idsFor(gateway, limited), ['small']);
    const text = '{ "object":"list",  "data":[{"id":"large","created":1.0}] }';
    upstream.script = json(text);
    assert.equal(await (await get(gateway, '/v1/models', free)).text(), text);
    assert.deepEqual(await idsFor(gateway, limited), []);
  });

  it('one by one: another model is a 404 as if there were none, and no backend is asked', async (t) => {
    for (const models of [{}, { aliases: ALIASES, learn: false }]) {
      const { gateway, upstream } = await setupKeyed(t, server('small', 'org/large'), KEYS, { models });
      for (const [model, name] of [
        ['org%2Flarge', 'org/large'],
        ['tiny', 'tiny'],
      ]) {
        const response = await get(gateway, `/v1/models/${model}`, limited);
        assert.equal(response.status, 404);
        assert.deepEqual(await response.json(), {
          error: { message: `The model \`${name}\` does not exist.`, type: 'NotFoundError', param: 'model', code: 404 },
        });
      }
      assert.equal(upstream.received.length, 0);
      const asked = async (path: string, key: TestKey) =>
        ((await (await get(gateway, path, key)).json()) as { asked: string }).asked;
      assert.equal(await asked('/v1/models/small', limited), '/v1/models/small');
      assert.equal(await asked('/v1/models/org%2Flarge', free), '/v1/models/org%2Flarge');
      if ('aliases' in models) assert.equal(await asked('/v1/models/nick', limited), '/v1/models/org%2Flarge');
    }
  });
});
