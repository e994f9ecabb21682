import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { askAll, type CacheOption } from '../../bench/ask.ts';
import { answerTokenLimit, makePrograms } from '../../bench/workload.ts';
import type { Listening } from '../../common/http.ts';
import { DASHBOARDS } from '../../deploy/grafana/all.ts';
import { toDashboard } from '../../deploy/grafana/dashboard.ts';
import { panelQueries, RULE_FILES, ruleQueries } from '../../deploy/grafana/queries.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { PatienceError, until } from '../../scripts/until.ts';
import { NO_REDIS } from '../gateway-keys/redis-server.ts';
import { type Prometheus, startPrometheus, withoutPrometheus } from '../support/prometheus.ts';
import { type Load, PATIENCE, startLoad } from '../system/harness.ts';
import { type KeyedGateway, startKeyedGateway } from './keyed-gateway.ts';
import { RECORDED_JOBS, startReplay } from './replay.ts';

const LINES = 12;
const BUDGET_TOKENS = 48;
const FIXED = { type: 'fixed', budget_tokens: BUDGET_TOKENS };
/** Both requests with evictions and with a full cache of one profile, so that their lengths can be compared. */
const LOADS: readonly CacheOption[] = [
  { profile: 'crystal', budget_tokens: BUDGET_TOKENS },
  { profile: 'crystal', budget_tokens: BUDGET_TOKENS, mode: 'shadow' },
  { profile: 'shadow' },
  { profile: 'window', budget_tokens: BUDGET_TOKENS },
  // whole blocks are judged, beside the tokens of the profiles above
  { profile: 'window', budget_tokens: BUDGET_TOKENS, mode: 'shadow' },
];
const CONFIG = {
  engine: { log_level: 'warn', pool_blocks: 256 },
  // less than there are clients, so that some wait; a busy machine is no reason to turn any away
  gateway: { log_level: 'warn', admission: { concurrency: 3, queue_ms: 120_000, event_loop_delay_ms: 0 } },
  policy_service: { measure_every: 1, measure_every_idle: 1, log_level: 'warn' },
  profiles: {
    default: { policy: 'crystal' },
    crystal: { policy: 'crystal' },
    window: { policy: 'window' },
    shadow: { policy: 'crystal', mode: 'shadow', controller: FIXED },
  },
};
const DEADLINE_MS = 90_000;

/** What Grafana puts in the place of variables; where several are offered, one query for each. */
function filled(expression: string): string[] {
  const choices = ['profile', 'policy', 'phase', 'engine', 'model'];
  const all = expression
    .replaceAll('$__rate_interval', '5m')
    .replaceAll('$__range', '5m')
    .replaceAll(/\$(?:model|engine)\b/g, '.*');
  return all.includes('$by') ? choices.map((choice) => all.replaceAll('$by', choice)) : [all];
}

/** The two sides of an alert's comparisons as 0 or 1, so that a healthy system has data too. */
const compared = (expression: string): string => expression.replaceAll(/(==|!=|<=|>=|<|>)(?=\s)/g, '$1 bool');

describe('every query has an answer from the running system', { skip: withoutPrometheus || NO_REDIS }, () => {
  let cluster: Cluster;
  let replay: Listening;
  let keyed: KeyedGateway;
  let prometheus: Prometheus;
  let loads: Load[] = [];

  before(async () => {
    [cluster, replay] = await Promise.all([startCluster({ config: CONFIG }), startReplay()]);
    keyed = await startKeyedGateway(cluster.engineUrl);
    const recorded = RECORDED_JOBS.map((job) => [job, `${replay.url}/${job}`]);
    prometheus = await startPrometheus(
      {
        gateway: `${cluster.gatewayUrl}/metrics`,
        'gateway-with-keys': keyed.metricsUrl,
        'policy-service': `${cluster.policyMetricsUrl}/metrics`,
        engine: `${cluster.engineUrl}/metrics`,
        ...Object.fromEntries(recorded),
      },
      RULE_FILES,
    );
    await prometheus.allUp();
    await keyed.spend();
    const options = { concurrency: 2, maxTokens: answerTokenLimit(LINES, 'plain') };
    for (const cache of LOADS) await askAll(cluster.gatewayUrl, makePrograms(7, 2, LINES), { ...options, cache });
    loads = LOADS.map((cache) => startLoad(cluster.gatewayUrl, { clients: 2, lines: LINES, cache }));
  });
  after(async () => {
    // a client that saw an error fails this
    await Promise.all(loads.map((load) => load.stop())).finally(async () => {
      await prometheus?.close();
      replay?.server.closeAllConnections();
      await replay?.close();
      await keyed?.close();
      await cluster?.close();
    });
  });

  /** Resolves once every query had a finite value; rejects when Prometheus refuses one, and names those without. */
  const answered = async (queries: readonly { place: string; expression: string }[]) => {
    let open = [...queries];
    assert.ok(open.length > 0);
    const ask = async () => {
      const still: typeof open = [];
      for (const query of open) {
        const series = await prometheus.query(query.expression).catch((error: Error) => {
          throw new Error(`${query.place}: ${query.expression}\n${error.message}`);
        });
        if (!series.some(({ value }) => Number.isFinite(value))) still.push(query);
      }
      open = still;
      return open.length === 0;
    };
    await until(ask, 'every query has data', { ms: DEADLINE_MS, progress: () => open.length }).catch((error: Error) => {
      if (!(error instanceof PatienceError)) throw error;
    });
    assert.deepEqual(
      open.map(({ place, expression }) => `${place}: ${expression}`),
      [],
      'no data',
    );
  };

  for (const { title } of DASHBOARDS) {
    test(`of the dashboard ${title}`, async () => {
      const queries = panelQueries().filter(({ place }) => place.startsWith(`${title}: `));
      await answered(
        queries.flatMap(({ place, expression }) => filled(expression).map((one) => ({ place, expression: one }))),
      );
    });

    test(`of the variables of ${title}`, async () => {
      const spec = DASHBOARDS.find((one) => one.title === title);
      assert.ok(spec);
      const variables = (toDashboard(spec).templating?.list ?? []).filter(({ type }) => type === 'query');
      const queries = variables.map(({ name, query }) => {
        const text = typeof query === 'string' ? query : String(query?.['query']);
        const [, selector, label] = /^label_values\((.+), (\w+)\)$/.exec(text) ?? [];
        assert.ok(selector !== undefined && label !== undefined, text);
        return { place: `variable ${name}`, expression: `count by (${label}) (${filled(selector)[0]})` };
      });
      await answered(queries);
      for (const { expression } of queries) {
        for (const { metric } of await prometheus.query(expression)) assert.equal(Object.keys(metric).length, 1);
      }
    });
  }

  test('of the rules', async () => {
    await answered(
      ruleQueries().map(({ place, kind, expression }) => ({
        place,
        expression: kind === 'alert' ? compared(expression) : expression,
      })),
    );
    const evaluated = async () => {
      const known = await prometheus.rules();
      return known.every(({ health }) => health !== 'unknown') && known;
    };
    const rules = await until(evaluated, 'all rules are evaluated', PATIENCE);
    assert.equal(rules.length, ruleQueries().length);
    assert.deepEqual(
      rules.filter(({ health }) => health !== 'ok'),
      [],
    );
  });

  test('and the savings are real: less is held than full caches would hold, and it is called for', async () => {
    const one = async (expression: string) => (await prometheus.query(expression))[0]?.value;
    const enforced = '{profile="window",mode="enforce"}';
    const share = await one(`crystalkv_peak_blocks_total${enforced} / crystalkv_full_peak_blocks_total${enforced}`);
    assert.ok(share !== undefined && share > 0 && share < 0.9, `share of the peak: ${share}`);
    assert.equal(await one('crystalkv_peak_blocks_total{mode="shadow"} == bool crystalkv_full_peak_blocks_total'), 1);
    const bytes = await one('sum(crystalkv_bytes_freed_total) / sum(crystalkv_blocks_evicted_total)');
    assert.equal(bytes, await one('max(crystalkv_block_bytes)'));
  });
});
