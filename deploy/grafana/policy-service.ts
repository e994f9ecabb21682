import { BytesIEC, CountsPerSecond, PercentUnit, Seconds, Short } from '@grafana/grafana-foundation-sdk/units';
import { min } from '@grafana/promql-builder';
import { attachedEngines, type DashboardSpec } from './dashboard.ts';
import { chart, figure } from './panel.ts';
import { ofEngines, perSecond, type Query, quantile, ratio, series, sumBy } from './query.ts';

const rated = (metric: string, labels: string[] = ['engine']): Query => sumBy(labels, perSecond(ofEngines(metric)));
/** Metrics of the service as a whole: they have no engine. */
const own = (metric: string) => series(metric);
const node = (metric: string) => series(metric, { service: 'policy-service' });

export const policyService: DashboardSpec = {
  name: 'policy-service',
  title: 'Policy service',
  description: 'Whether engines are attached, decisions come in time, and plans are carried out.',
  variables: attachedEngines(),
  rows: [
    {
      title: 'At a glance',
      panels: [
        figure({
          title: 'Engines attached',
          description: 'Streams that are up.',
          unit: Short,
          badUpTo: 1,
          queries: [[sumBy([], ofEngines('crystalkv_stream_up')), 'engines']],
        }),
        figure({
          title: 'Worst stream',
          description: '0 when an engine has detached: it evicts nothing now.',
          unit: Short,
          badUpTo: 1,
          queries: [[min(ofEngines('crystalkv_stream_up')), 'up']],
        }),
        figure({
          title: 'Decision, 99 %',
          description:
            "Time from a step's last message to its plan. The engine does not wait for it, but late plans have less effect.",
          unit: Seconds,
          badFrom: 0.05,
          queries: [[quantile(0.99, ofEngines('crystalkv_decision_seconds_bucket')), 'p99']],
        }),
        figure({
          title: 'Plans without effect',
          description: 'Share of plans that were rejected, stale or lost.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.2,
          queries: [
            [
              ratio(
                sumBy([], perSecond(ofEngines('crystalkv_plans_total', { outcome: '~rejected|stale|lost' }))),
                sumBy([], perSecond(ofEngines('crystalkv_plans_total'))),
              ),
              'share',
            ],
          ],
        }),
        figure({
          title: 'Missed steps',
          description: 'Share of steps without a decision, because the engine did not read its plans.',
          unit: PercentUnit,
          max: 1,
          badFrom: 0.1,
          queries: [
            [
              ratio(sumBy([], rated('crystalkv_missed_steps_total')), sumBy([], rated('crystalkv_steps_total'))),
              'share',
            ],
          ],
        }),
        figure({
          title: 'Event-loop delay, 99 %',
          description: 'How late the service runs its timers. Incoming messages wait as long.',
          unit: Seconds,
          badFrom: 0.1,
          queries: [[node('nodejs_eventloop_lag_p99_seconds'), 'p99']],
        }),
      ],
    },
    {
      title: 'Streams',
      panels: [
        chart({
          title: 'Stream up',
          description: '1 while an engine is attached. A drop to 0 means that the engine has left or was lost.',
          unit: Short,
          max: 1,
          queries: [[sumBy(['engine'], ofEngines('crystalkv_stream_up')), '{{engine}}']],
        }),
        chart({
          title: 'Streams opened',
          description:
            'Hellos per second. refused: the protocol or the contents do not fit. Many accepted ones: an engine keeps reconnecting.',
          unit: CountsPerSecond,
          queries: [[sumBy(['outcome'], perSecond(own('crystalkv_streams_total'))), '{{outcome}}']],
        }),
        chart({
          title: 'Dropped messages',
          description: 'Invalid messages, or parts of them, by reason. Some stale_epoch after preemptions are normal.',
          unit: CountsPerSecond,
          queries: [[sumBy(['reason'], perSecond(own('crystalkv_bad_messages_total'))), '{{reason}}']],
        }),
      ],
    },
    {
      title: 'Decisions',
      panels: [
        chart({
          title: 'Decision latency',
          description: "Time from a step's last message to its plan.",
          unit: Seconds,
          badFrom: 0.05,
          queries: [
            [quantile(0.5, ofEngines('crystalkv_decision_seconds_bucket'), ['engine']), '{{engine}}, 50 %'],
            [quantile(0.99, ofEngines('crystalkv_decision_seconds_bucket'), ['engine']), '{{engine}}, 99 %'],
          ],
        }),
        chart({
          title: 'Plans by outcome',
          description:
            'applied: all of it; partial: some blocks; rejected: none; stale: the request had started over; lost: the engine never answered it.',
          unit: CountsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_plans_total', ['outcome']), '{{outcome}}']],
        }),
        chart({
          title: 'Rejected blocks by reason',
          description:
            'Blocks that engines refused to evict. shared and not_resident come with load; protected and out_of_range are bugs.',
          unit: CountsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_rejected_blocks_total', ['reason']), '{{reason}}']],
        }),
        chart({
          title: 'Missed steps',
          description:
            'service: steps without a decision, because the engine did not read its plans. engine: steps without the plan they needed, also those without a stream.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_missed_steps_total'), 'service, {{engine}}'],
            [sumBy(['instance'], perSecond(own('crystalkv_engine_missed_steps_total'))), 'engine, {{instance}}'],
          ],
        }),
        chart({
          title: 'Dropped reports',
          description:
            'Reports per second that engines dropped because the stream was too slow. Scores are older as a result.',
          unit: CountsPerSecond,
          queries: [[sumBy(['instance'], perSecond(own('crystalkv_engine_dropped_reports_total'))), '{{instance}}']],
        }),
        chart({
          title: 'Steps, and measured requests',
          description:
            'Engine steps received per second, and measured requests in them. Engines measure rarely while memory is free.',
          unit: CountsPerSecond,
          queries: [
            [rated('crystalkv_steps_total'), 'steps, {{engine}}'],
            [rated('crystalkv_measured_steps_total'), 'measured, {{engine}}'],
          ],
        }),
        chart({
          title: 'Probes by outcome',
          description:
            'finished and partial probes are used. no_room: there was no memory without a preemption. unsupported: the thinking had ended.',
          unit: CountsPerSecond,
          stack: true,
          queries: [[rated('crystalkv_probes_total', ['outcome']), '{{outcome}}']],
        }),
        chart({
          title: 'Merges',
          description: 'Merges per second that engines carried out instead of evictions; profiles turn them on.',
          unit: CountsPerSecond,
          queries: [[rated('crystalkv_merges_total', ['engine', 'policy']), '{{engine}}, {{policy}}']],
        }),
        chart({
          title: 'Configuration',
          description:
            'Reloads (SIGHUP) by outcome, and requests that named a profile that does not exist, per second.',
          unit: CountsPerSecond,
          queries: [
            [sumBy(['outcome'], perSecond(own('crystalkv_config_reloads_total'))), 'reload {{outcome}}'],
            [sumBy([], perSecond(own('crystalkv_unknown_profiles_total'))), 'unknown profile'],
          ],
        }),
      ],
    },
    {
      title: 'Process',
      panels: [
        chart({
          title: 'Event-loop delay',
          description: 'How late the service runs its timers, by instance.',
          unit: Seconds,
          badFrom: 0.1,
          queries: [
            [sumBy(['instance'], node('nodejs_eventloop_lag_p50_seconds')), '{{instance}}, 50 %'],
            [sumBy(['instance'], node('nodejs_eventloop_lag_p99_seconds')), '{{instance}}, 99 %'],
          ],
        }),
        chart({
          title: 'CPU',
          description: 'Cores in use. The service uses at most one.',
          unit: Short,
          queries: [[sumBy(['instance'], perSecond(node('process_cpu_seconds_total'))), '{{instance}}']],
        }),
        chart({
          title: 'Memory',
          description: 'Resident memory of the process.',
          unit: BytesIEC,
          queries: [[sumBy(['instance'], node('process_resident_memory_bytes')), '{{instance}}']],
        }),
      ],
    },
  ],
};
