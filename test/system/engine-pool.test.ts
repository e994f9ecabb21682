import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { type Answer, askAll, type CacheOption } from '../../bench/ask.ts';
import { makePrograms } from '../../bench/workload.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { CONFIG, MAX_TOKENS, metric, metricReaches } from './harness.ts';

const PREEMPTIONS = 'vllm:num_preemptions_total';

/** A whole cache of one such program takes about 33 blocks, 9 of them for the prompt. */
const LINES = 24;
const POOL_BLOCKS = 80;

describe('an engine whose pool is too small for whole caches', () => {
  let cluster: Cluster | undefined;
  afterEach(async () => {
    await cluster?.close();
    cluster = undefined;
  });

  const run = async (it: Cluster, count: number, cache: CacheOption): Promise<Answer[]> => {
    const answers = await askAll(it.gatewayUrl, makePrograms(31, count, LINES), {
      maxTokens: MAX_TOKENS,
      concurrency: count,
      cache,
    });
    await metricReaches(it.engineUrl, 'vllm:kv_cache_usage_perc', (value) => value === 0);
    return answers;
  };

  test('preempts, answers right and gives every block back', async () => {
    cluster = await startCluster({ config: { ...CONFIG, engine: { ...CONFIG.engine, pool_blocks: POOL_BLOCKS } } });
    const answers = await run(cluster, 10, { mode: 'off' });
    assert.ok((await metric(cluster.engineUrl, PREEMPTIONS)) > 0, 'nothing was preempted');
    assert.deepEqual(
      answers.map((answer) => answer.exact),
      answers.map(() => true),
    );
  });

  test('preempts nothing when the requests keep a budget for which it is large enough', async () => {
    const engine = { ...CONFIG.engine, pool_blocks: POOL_BLOCKS, lockstep: true };
    cluster = await startCluster({ config: { ...CONFIG, engine } });
    await run(cluster, 4, { profile: 'crf', budget_tokens: 96 });
    assert.equal(await metric(cluster.engineUrl, PREEMPTIONS), 0);
    await run(cluster, 4, { mode: 'off' });
    assert.ok((await metric(cluster.engineUrl, PREEMPTIONS)) > 0, 'whole caches fit too: the test shows nothing');
  });
});
