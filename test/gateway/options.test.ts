import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chat, type ErrorAnswer, post, setup } from './harness.ts';
import { json } from './upstream.ts';

async function refused(t: import('node:test').TestContext, option: unknown, config = {}, profiles: string[] = []) {
  const { gateway, upstream } = await setup(t, json('{}'), config, profiles);
  const response = await chat(gateway, { crystal_kv: option });
  assert.equal(response.status, 400);
  assert.equal(upstream.received.length, 0);
  const { error } = (await response.json()) as ErrorAnswer;
  assert.equal(error.type, 'gateway_invalid_option');
  assert.equal(error.code, 400);
  return error;
}

describe('the crystal_kv option', () => {
  it('becomes flat keys of vllm_xargs, and is not sent itself', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const response = await chat(gateway, {
      model: 'm',
      crystal_kv: { profile: 'tight', budget_tokens: 512, mode: 'shadow' },
      vllm_xargs: { mine: [1, 2], crystalkv_mode: 'off', crystalkv_anything: 1 },
    });
    assert.equal(response.status, 200);
    assert.deepEqual(JSON.parse(upstream.received[0]!.body.toString()), {
      model: 'm',
      vllm_xargs: {
        mine: [1, 2],
        crystalkv_id: response.headers.get('x-crystalkv-id'),
        crystalkv_profile: 'tight',
        crystalkv_budget_tokens: 512,
        crystalkv_mode: 'shadow',
      },
    });
  });

  for (const option of [null, {}]) {
    it(`${JSON.stringify(option)} is the same as none`, async (t) => {
      const { gateway, upstream } = await setup(t, json('{}'));
      const response = await chat(gateway, { crystal_kv: option });
      assert.deepEqual(JSON.parse(upstream.received[0]!.body.toString()), {
        vllm_xargs: { crystalkv_id: response.headers.get('x-crystalkv-id') },
      });
    });
  }

  it('is taken out, with the reserved keys, where tokens are only counted', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const body = '{"a":1, "crystal_kv":{},"vllm_xargs":{"crystalkv_id":"x"}}';
    assert.equal((await post(gateway, '/v1/messages/count_tokens', body)).status, 200);
    assert.equal(upstream.received[0]!.body.toString(), '{"a":1,"vllm_xargs":{}}');
  });

  for (const [option, param, message] of [
    [{ budget_tokens: 0 }, 'budget_tokens', 'crystal_kv.budget_tokens is 0: must be an integer from 1 to 1048576'],
    [{ budget_tokens: 1.5 }, 'budget_tokens', 'crystal_kv.budget_tokens is 1.5: must be an integer from 1 to 1048576'],
    [{ budget_tokens: '9' }, 'budget_tokens', 'crystal_kv.budget_tokens is "9": must be an integer from 1 to 1048576'],
    [
      { budget_tokens: null },
      'budget_tokens',
      'crystal_kv.budget_tokens is null: must be an integer from 1 to 1048576',
    ],
    [{ mode: 'on' }, 'mode', 'crystal_kv.mode is "on": must be one of enforce, shadow, off'],
    [
      { profile: 'a b' },
      'profile',
      'crystal_kv.profile is "a b": must be a name of 1 to 64 letters, digits, dots, dashes or underscores',
    ],
    [{ budget: 5 }, 'budget', 'crystal_kv has no field "budget"; known: profile, budget_tokens, mode, report'],
  ] as const) {
    it(`${JSON.stringify(option)} is refused by field, value and bounds`, async (t) => {
      const error = await refused(t, option);
      assert.deepEqual([error.param, error.message], [`crystal_kv.${param}`, message]);
    });
  }

  for (const option of ['tight', 5, [], true]) {
    it(`${JSON.stringify(option)} is refused: an object is wanted`, async (t) => {
      const error = await refused(t, option);
      assert.equal(error.param, 'crystal_kv');
      assert.match(error.message, /must be an object with the fields profile, budget_tokens, mode, report$/);
    });
  }

  it('the bounds are those of the configuration', async (t) => {
    const error = await refused(
      t,
      { budget_tokens: 63 },
      { options: { budget_tokens_min: 64, budget_tokens_max: 128 } },
    );
    assert.equal(error.message, 'crystal_kv.budget_tokens is 63: must be an integer from 64 to 128');
  });

  it('a profile that the configuration does not have is refused with the known names', async (t) => {
    const error = await refused(t, { profile: 'none' }, {}, ['tight', 'wide']);
    assert.equal(error.message, 'crystal_kv.profile is "none": must be one of tight, wide');
  });

  it('shows no more than the start of a long value', async (t) => {
    const error = await refused(t, { mode: 'x'.repeat(5_000) });
    assert.ok(error.message.length < 200);
  });
});
