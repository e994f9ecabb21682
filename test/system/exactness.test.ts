import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { CacheOption } from '../../bench/ask.ts';
import { makePrograms } from '../../bench/workload.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { CONFIG, metric } from './harness.ts';

describe('eviction in lockstep', () => {
  const programs = makePrograms(21, 8, 20);
  let cluster: Cluster;
  let untouched: string[];

  const outputs = (cache: CacheOption) =>
    Promise.all(
      programs.map(async ({ messages }) => {
        const response = await fetch(`${cluster.gatewayUrl}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({
            model: 'crystal-mini',
            messages,
            temperature: 0,
            max_tokens: 450,
            return_token_ids: true,
            crystal_kv: cache,
          }),
        });
        const body = (await response.json()) as {
          choices: [{ token_ids?: number[]; message: { reasoning: string; content: string } }];
        };
        const [{ token_ids, message }] = body.choices;
        return JSON.stringify(token_ids ?? [message.reasoning, message.content]);
      }),
    );

  before(async () => {
    cluster = await startCluster({ config: { ...CONFIG, engine: { ...CONFIG.engine, lockstep: true } } });
    untouched = await outputs({ mode: 'off' });
  });
  after(() => cluster?.close());

  for (const profile of ['window', 'h2o', 'crf', 'crystal']) {
    test(`${profile} with a budget above the length gives the same tokens as eviction off`, async () => {
      assert.deepEqual(await outputs({ profile, budget_tokens: 4096 }), untouched);
      assert.equal(await metric(cluster.engineUrl, 'crystalkv_engine_missed_steps_total'), 0);
    });
  }

  test('shadow mode gives the same tokens as eviction off', async () => {
    assert.deepEqual(await outputs({ profile: 'crystal', budget_tokens: 64, mode: 'shadow' }), untouched);
  });

  test('a budget far below the length changes the tokens', async () => {
    assert.notDeepEqual(await outputs({ profile: 'window', budget_tokens: 80 }), untouched);
  });

  test('the same budget gives the same tokens again', async () => {
    const first = await outputs({ profile: 'crf', budget_tokens: 96 });
    assert.deepEqual(await outputs({ profile: 'crf', budget_tokens: 96 }), first);
  });
});
