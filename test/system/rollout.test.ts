import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { parse, stringify } from 'yaml';
import { makePrograms } from '../../bench/workload.ts';
import { KvPolicyClient, type RequestState } from '../../proto/gen/crystalkv/v1/policy.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { readMetrics, total } from '../../scripts/metrics/text.ts';
import { ROOT } from '../../scripts/processes.ts';
import { CONFIG, MAX_TOKENS, metric, metricReaches } from './harness.ts';

const guide = readFileSync(join(ROOT, 'docs/rollout.md'), 'utf8');
const stages = [...guide.matchAll(/```yaml\n(.*?)```/gs)].map(([, text]) => parse(text as string));
const PROGRAMS = 4;

/** The file of a stage, with quiet logs and every step measured. */
const fileOf = (stage: number, change: object = {}) => ({
  ...CONFIG,
  ...stages[stage],
  policy_service: { ...CONFIG.policy_service, ...stages[stage].policy_service, ...change },
});
suite('the stages of the rollout guide, as they are written', () => {
  let cluster: Cluster;
  let client: KvPolicyClient;
  let reloads = 0;

  before(async () => {
    cluster = await startCluster({ config: fileOf(0) });
    client = new KvPolicyClient(cluster.policyAddress, credentials.createInsecure());
  });
  after(async () => {
    client?.close();
    await cluster?.close();
  });

  const reload = async (config: object) => {
    writeFileSync(join(cluster.logFolder, 'crystal-kv.yaml'), stringify(config));
    reloads += 1;
    for (const part of ['policy-service', 'gateway'] as const) cluster.part(part).signal('SIGHUP');
    const url = cluster.policyMetricsUrl;
    await metricReaches(url, 'crystalkv_config_reloads_total', (n) => n === reloads, { outcome: 'applied' });
  };
  /** Sends programs, which must all be answered right. Returns the id of one of the requests. */
  const solve = async (profile?: string): Promise<string> => {
    const programs = makePrograms(5, PROGRAMS, 24, 'verbose');
    const ids = await Promise.all(
      programs.map(async ({ messages, answer }) => {
        const response = await fetch(`${cluster.gatewayUrl}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({
            model: 'crystal-mini',
            messages,
            temperature: 0,
            max_tokens: MAX_TOKENS,
            ...(profile === undefined ? {} : { crystal_kv: { profile } }),
          }),
        });
        const body = (await response.json()) as { choices: [{ message: { content: string } }] };
        assert.equal(response.status, 200, JSON.stringify(body));
        assert.ok(body.choices[0].message.content.includes(answer), answer);
        return response.headers.get('x-crystalkv-id')!;
      }),
    );
    return ids[0]!;
  };
  const figure = async (name: string, labels: Record<string, string> = {}) =>
    total(await readMetrics(`${cluster.policyMetricsUrl}/metrics`), `crystalkv_${name}`, labels);
  const stateOf = (crystalkvId: string) =>
    new Promise<RequestState>((resolve, reject) => {
      client.getRequest({ crystalkvId, choiceIndex: 0 }, (error, answer) => {
        if (error !== null || answer.request === undefined) reject(error);
        else resolve(answer.request);
      });
    });
  const freed = () => metric(cluster.engineUrl, 'crystalkv_engine_blocks_evicted_total');
  /** What the guide calls good, of requests in one mode. */
  const isGood = async (labels: Record<string, string>) => {
    const [evicted, regretted, steps, missed] = await Promise.all(
      ['evicted_blocks', 'regretted_blocks', 'steps', 'missed_mass'].map((name) =>
        figure(`shadow_${name}_total`, labels),
      ),
    );
    const limits = ['profile:crystalkv_regret:ratio_rate1h', 'profile:crystalkv_missed_mass:mean_rate1h'].map((rule) =>
      Number(guide.match(new RegExp(`^\\| \`${rule}\` \\| below ([0-9.]+) `, 'm'))?.[1]),
    );
    assert.ok(evicted! > 10 && steps! > 100, `${evicted} blocks, ${steps} steps`);
    const [regret, mass] = [regretted! / evicted!, missed! / steps!];
    assert.ok(mass > 0 && mass < limits[1]!, `missed mass ${mass}`);
    assert.ok(regret < limits[0]!, `regret ${regret}`);
  };

  test('1: shadow carries nothing out, and says what merges would have cost', async () => {
    const id = await solve();
    assert.equal(await freed(), 0);
    await isGood({ profile: 'shadow', mode: 'shadow' });
    const { shadow, evictedBlocks } = await stateOf(id);
    assert.equal(evictedBlocks, 0);
    assert.ok(shadow?.byToken && shadow.blocks > 5);
    assert.ok(shadow.phases.some(({ steps, missedMass }) => steps > 50 && missedMass > 0));
  });

  test('2: the profile that clients name merges; its canaries keep everything, and are judged', async () => {
    await reload(fileOf(1));
    await solve();
    assert.equal(await freed(), 0, 'the default is still shadow');
    await solve('rollout');
    const merged = await freed();
    assert.ok(merged > 10, 'most of them are no canaries');
    assert.ok((await figure('merges_total')) > 0);
    const { rollout } = stages[1].profiles;
    // all requests instead of a tenth: which they are is left to their ids
    await reload({ ...fileOf(1), profiles: { ...stages[1].profiles, rollout: { ...rollout, canary_share: 1 } } });
    const id = await solve('rollout');
    assert.equal(await freed(), merged);
    await isGood({ profile: 'rollout', mode: 'canary' });
    const state = await stateOf(id);
    assert.ok(state.canary && state.shadow?.byToken && state.shadow.blocks > 5);
  });

  test('3: the default of the rollout is the shipped one, and takes nothing while memory is free', async () => {
    const shipped = parse(readFileSync(join(ROOT, 'crystal-kv.yaml'), 'utf8')).profiles.default;
    const { canary_share: _, ...enforced } = stages[2].profiles.default;
    assert.deepEqual(enforced, shipped);
    await reload(fileOf(2));
    const before = await freed();
    await solve();
    assert.equal(await freed(), before);
    assert.ok((await figure('finished_requests_total', { profile: 'default', mode: 'enforce' })) >= PROGRAMS);
  });

  test('back: switched off at once, whatever requests ask for', async () => {
    await reload(fileOf(1, { enabled: false }));
    const before = await freed();
    await solve('rollout');
    assert.equal(await freed(), before);
    assert.ok((await figure('finished_requests_total', { profile: 'rollout', mode: 'off' })) >= PROGRAMS);
  });
});
