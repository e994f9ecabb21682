import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { askAll } from '../../bench/ask.ts';
import { makePrograms } from '../../bench/workload.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { startPrometheus, withoutPrometheus } from '../support/prometheus.ts';
import { CONFIG } from './harness.ts';

const WITHOUT_PROMTOOL = spawnSync('promtool', ['--version']).error === undefined ? false : 'promtool is not installed';
/** Names that others chose: vLLM's, and those of Node's own metrics. */
const FOREIGN = /^(vllm:|nodejs_|process_)/;

describe('the metrics of all three programs', () => {
  let cluster: Cluster;
  let urls: { engine: string; gateway: string; 'policy-service': string };
  before(async () => {
    cluster = await startCluster({ config: CONFIG });
    urls = { engine: cluster.engineUrl, gateway: cluster.gatewayUrl, 'policy-service': cluster.policyMetricsUrl };
    await askAll(cluster.gatewayUrl, makePrograms(41, 4, 24), {
      concurrency: 4,
      maxTokens: 500,
      cache: { profile: 'crystal', budget_tokens: 96 },
    });
  });
  after(() => cluster?.close());

  for (const part of ['engine', 'gateway', 'policy-service'] as const) {
    test(`${part}: promtool accepts them`, { skip: WITHOUT_PROMTOOL }, async () => {
      const page = await (await fetch(`${urls[part]}/metrics`)).text();
      const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: page, encoding: 'utf8' });
      // 3: it can be read, but breaks a naming rule.
      assert.ok(status === 0 || status === 3, stdout + stderr);
      const own = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '' && !FOREIGN.test(line));
      assert.deepEqual(own, []);
    });
  }

  test('a Prometheus reads all of them', { skip: withoutPrometheus }, async (t) => {
    const pages = Object.entries(urls).map(([part, url]) => [part, `${url}/metrics`]);
    const prometheus = await startPrometheus(Object.fromEntries(pages), []);
    t.after(() => prometheus.close());
    await prometheus.allUp();
    const [evicted] = await prometheus.query('sum(crystalkv_blocks_evicted_total)');
    assert.ok((evicted?.value ?? 0) > 0);
    const [generated] = await prometheus.query('vllm:generation_tokens_total');
    assert.ok((generated?.value ?? 0) > 0);
  });
});
