import { BytesIEC, CountsPerSecond, PercentUnit, Short } from '@grafana/grafana-foundation-sdk/units';
import { mul, sub } from '@grafana/promql-builder';
import { attachedEngines, choiceVariable, type DashboardSpec } from './dashboard.ts';
import { chart, figure } from './panel.ts';
import { inRange, ofEngines, perSecond, type Query, ratio, series, sumBy, withModel } from './query.ts';

const BY = ['$by'];
const LINE = '{{$by}}';
const now = (metric: string): Query => withModel(ofEngines(metric));
const blocksSaved = (): Query => sub(now('crystalkv_blocks_full'), now('crystalkv_blocks_resident'));
const bytesSaved = (): Query =>
  mul(blocksSaved(), series('crystalkv_block_bytes')).on(['instance', 'engine']).groupLeft([]);
const enforced = (metric: string) => ofEngines(metric, { mode: 'enforce' });
/** Requests with a full cache: shadowed ones and canaries lose nothing either. */
const whole = (metric: string) => ofEngines(metric, { mode: '~shadow|canary|off' });
const rated = (metric: string): Query => sumBy(BY, withModel(perSecond(ofEngines(metric))));
const grown = (vector: ReturnType<typeof ofEngines>, by: string[]): Query => sumBy(by, withModel(inRange(vector)));

/** Mean length of finished answers with evictions, over that with a full cache, in the whole time range. */
const lengthRatio = (by: string[]): Query => {
  const mean = (of: typeof enforced) =>
    ratio(grown(of('crystalkv_finished_tokens_total'), by), grown(of('crystalkv_finished_requests_total'), by));
  return ratio(mean(enforced), mean(whole));
};
/** Of what shadowed requests would have lost, the share that was read later. */
const regret = (judged: 'tokens' | 'blocks'): Query => {
  const of = (metric: string) => sumBy(BY, withModel(perSecond(ofEngines(metric, { judged }))));
  return ratio(of('crystalkv_shadow_regretted_blocks_total'), of('crystalkv_shadow_evicted_blocks_total'));
};
const peakShare = (by: string[]): Query =>
  ratio(grown(enforced('crystalkv_peak_blocks_total'), by), grown(enforced('crystalkv_full_peak_blocks_total'), by));

export const kvSavings: DashboardSpec = {
  name: 'kv-savings',
  title: 'KV savings',
  description: 'What evictions save, and what they cost.',
  variables: [
    ...attachedEngines(),
    choiceVariable('by', 'Split by', ['profile', 'policy', 'phase', 'engine', 'model']),
  ],
  rows: [
    {
      title: 'At a glance',
      panels: [
        figure({
          title: 'Memory saved now',
          description:
            'Bytes of keys and values that full caches of the running requests would take, minus those that are taken.',
          unit: BytesIEC,
          queries: [[sumBy([], bytesSaved()), 'memory']],
        }),
        figure({
          title: 'Share of full caches held',
          description:
            'Blocks in the cache divided by blocks of full caches, for the running requests. Lower saves more.',
          unit: PercentUnit,
          max: 1,
          queries: [
            [ratio(sumBy([], now('crystalkv_blocks_resident')), sumBy([], now('crystalkv_blocks_full'))), 'held'],
          ],
        }),
        figure({
          title: 'Share of the full-cache peak',
          description:
            'Peak blocks of a request, divided by those of a full cache; for requests with evictions that finished in the time range.',
          unit: PercentUnit,
          max: 1,
          queries: [[peakShare([]), 'peak']],
        }),
        figure({
          title: 'Length ratio',
          description:
            'Mean tokens of answers with evictions divided by those with a full cache (shadow, canary, off) in the time range. Above 1 the model thinks longer because of what it lost. Known only when both kinds of requests have finished.',
          unit: Short,
          badFrom: 1.1,
          queries: [[lengthRatio([]), 'ratio']],
        }),
        figure({
          title: 'Missed mass',
          description:
            'Mean share of attention on what is gone, or would be: of shadowed requests and canaries in the time range, whose full caches tell it exactly.',
          unit: PercentUnit,
          badFrom: 0.1,
          queries: [
            [
              ratio(
                grown(ofEngines('crystalkv_shadow_missed_mass_total'), []),
                grown(ofEngines('crystalkv_shadow_steps_total'), []),
              ),
              'missed',
            ],
          ],
        }),
        figure({
          title: 'Preemptions',
          description:
            'Requests in the time range whose whole cache was discarded because blocks ran out: what evictions are there to avoid.',
          unit: Short,
          queries: [[sumBy([], inRange(ofEngines('crystalkv_preemptions_total'))), 'preempted']],
        }),
      ],
    },
    {
      title: 'What it costs',
      panels: [
        chart({
          title: 'Regret',
          description:
            'Of the tokens that merges would have let go in shadowed requests, the share that a later measured step read, each head group by itself. Exact, because their caches are complete.',
          columns: 4,
          unit: PercentUnit,
          badFrom: 0.015,
          queries: [[regret('tokens'), LINE]],
        }),
        chart({
          title: 'Regret of whole blocks',
          description:
            'The same for blocks that would have been evicted. A block counts when some head group reads it, so this is much higher. Merges are judged this way where the engine cannot mark tokens.',
          columns: 4,
          unit: PercentUnit,
          max: 1,
          badFrom: 0.3,
          queries: [[regret('blocks'), LINE]],
        }),
        chart({
          title: 'Missed mass',
          description:
            'Mean share of attention on what would have been gone, tokens or whole blocks, over the measured steps of shadowed requests.',
          columns: 4,
          unit: PercentUnit,
          max: 1,
          badFrom: 0.1,
          queries: [[ratio(rated('crystalkv_shadow_missed_mass_total'), rated('crystalkv_shadow_steps_total')), LINE]],
        }),
        chart({
          title: 'Length ratio',
          description:
            'Mean tokens of answers with evictions divided by those with a full cache, within one time range before each point. Known only when both kinds of requests have finished.',
          columns: 4,
          unit: Short,
          badFrom: 1.1,
          queries: [[lengthRatio(BY), LINE]],
        }),
        chart({
          title: 'Probe tokens',
          description: 'Tokens per second that engines computed for answer probes. Clients wait for this time.',
          unit: CountsPerSecond,
          columns: 4,
          queries: [[sumBy(['engine'], perSecond(ofEngines('crystalkv_probe_tokens_total'))), '{{engine}}']],
        }),
        chart({
          title: 'Probe share of tokens',
          description:
            'Tokens of answer probes divided by tokens that finished requests generated. Profiles limit it (max_extra_share).',
          unit: PercentUnit,
          columns: 4,
          badFrom: 0.1,
          queries: [
            [
              ratio(
                sumBy(['engine'], inRange(ofEngines('crystalkv_probe_tokens_total'))),
                sumBy(['engine'], inRange(ofEngines('crystalkv_finished_tokens_total'))),
              ),
              '{{engine}}',
            ],
          ],
        }),
        chart({
          title: 'Preemptions',
          description:
            'Requests per second whose whole cache was discarded because blocks ran out. Evictions should make this rare.',
          unit: CountsPerSecond,
          columns: 4,
          queries: [[sumBy(['engine'], perSecond(ofEngines('crystalkv_preemptions_total'))), '{{engine}}']],
        }),
        chart({
          title: 'Running and waiting',
          description: 'Requests as the engine counts them. Waiting ones lack memory, or a slot in the batch.',
          unit: Short,
          columns: 4,
          queries: [[sumBy(['engine', 'state'], ofEngines('crystalkv_pool_requests')), '{{engine}}, {{state}}']],
        }),
      ],
    },
    {
      title: 'What is saved',
      panels: [
        chart({
          title: 'Blocks held, and with full caches',
          description: 'The gap between the two lines of a colour is what is saved.',
          unit: Short,
          queries: [
            [sumBy(BY, now('crystalkv_blocks_resident')), `held, ${LINE}`],
            [sumBy(BY, now('crystalkv_blocks_full')), `full, ${LINE}`],
          ],
        }),
        chart({
          title: 'Memory saved',
          description: 'Bytes of keys and values that full caches would hold beyond what is held.',
          unit: BytesIEC,
          stack: true,
          queries: [[sumBy(BY, bytesSaved()), LINE]],
        }),
        chart({
          title: 'Share of the full-cache peak',
          description:
            'Peak blocks of requests, divided by those of full caches; for requests with evictions that finished within one time range before each point.',
          unit: PercentUnit,
          max: 1,
          queries: [[peakShare(BY), LINE]],
        }),
        chart({
          title: 'Blocks evicted',
          description: 'Blocks per second that engines reported as evicted, or freed by merging.',
          unit: CountsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_blocks_evicted_total'), LINE]],
        }),
        chart({
          title: 'Memory freed',
          description: 'Bytes of keys and values per second that evictions returned to the pool.',
          unit: 'binBps',
          stack: true,
          queries: [[rated('crystalkv_bytes_freed_total'), LINE]],
        }),
        chart({
          title: 'Requests by mode',
          description:
            'enforce: blocks are evicted or merged; shadow, canary: what that would cost is only measured; off: nothing is decided.',
          unit: Short,
          stack: true,
          queries: [[sumBy(['profile', 'mode'], now('crystalkv_requests')), '{{profile}}, {{mode}}']],
        }),
      ],
    },
    {
      title: 'Memory',
      panels: [
        chart({
          title: 'Share of the pool in use',
          description:
            'KV blocks in use, not counting cached prompts. Evictions raise throughput only when this is near 1.',
          unit: PercentUnit,
          max: 1,
          columns: 2,
          queries: [
            [
              ratio(
                sumBy(['engine'], ofEngines('crystalkv_pool_blocks', { state: 'used' })),
                sumBy(['engine'], ofEngines('crystalkv_pool_blocks')),
              ),
              '{{engine}}',
            ],
          ],
        }),
        chart({
          title: 'Spared requests',
          description:
            'Cold requests: their history was lost in a reconnect, so nothing of them is evicted until it is known again.',
          unit: Short,
          columns: 2,
          queries: [[sumBy(['engine'], ofEngines('crystalkv_cold_requests')), '{{engine}}']],
        }),
      ],
    },
  ],
};
