import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { stringify } from 'yaml';
import { askAll } from '../../bench/ask.ts';
import { makePrograms } from '../../bench/workload.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { freePorts } from '../../scripts/ports.ts';
import { CONFIG, eventually } from './harness.ts';

const has = (command: string) => spawnSync(command, ['--version']).error === undefined;
const without = (command: string) => (has(command) ? false : `${command} is not installed`);
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
    test(`${part}: promtool accepts them`, { skip: without('promtool') }, async () => {
      const page = await (await fetch(`${urls[part]}/metrics`)).text();
      const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: page, encoding: 'utf8' });
      // 3: it can be read, but breaks a naming rule.
      assert.ok(status === 0 || status === 3, stdout + stderr);
      const own = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '' && !FOREIGN.test(line));
      assert.deepEqual(own, []);
    });
  }

  test('a Prometheus reads all of them', { skip: without('prometheus') }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-prometheus-'));
    const [port] = await freePorts(1);
    const config = join(folder, 'prometheus.yml');
    const jobs = Object.entries(urls).map(([job_name, url]) => ({
      job_name,
      scrape_interval: '200ms',
      scrape_timeout: '200ms',
      static_configs: [{ targets: [new URL(url).host] }],
    }));
    writeFileSync(config, stringify({ scrape_configs: jobs }));
    const prometheus: ChildProcess = spawn(
      'prometheus',
      [
        `--config.file=${config}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      { stdio: 'ignore' },
    );
    const ended = once(prometheus, 'exit');
    const query = async (expression: string) => {
      const response = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`);
      const { data } = (await response.json()) as {
        data: { result: { metric: Record<string, string>; value: [number, string] }[] };
      };
      return data.result;
    };
    try {
      await eventually('three targets that are up', async () => {
        const up = await query('up == 1').catch(() => []);
        return up.length === 3 ? true : undefined;
      });
      const [evicted] = await query('sum(crystalkv_blocks_evicted_total)');
      assert.ok(Number(evicted?.value[1]) > 0);
      const [generated] = await query('vllm:generation_tokens_total');
      assert.ok(Number(generated?.value[1]) > 0);
    } finally {
      prometheus.kill('SIGTERM');
      await ended;
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
