import type { Fleet } from '../fleet/fleet.ts';
import type { LimitsConfig } from '../limits/config.ts';
import { promptEstimate } from '../limits/key-limits.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { RequestRecord } from '../observe/record.ts';
import type { UpstreamRequest } from '../request/upstream-request.ts';
import { createShaper, type Shaper } from '../response/shaper.ts';
import type { Route } from '../routes.ts';
import type { CompatConfig, METERING, UsageConfig } from './config.ts';
import { type Estimates, Meter } from './meter.ts';
import type { ModelNames } from './model-names.ts';
import { cacheReport } from './report.ts';

/** Label of requests while nobody is asked for a key. */
const NO_KEY = 'none';

export interface Metering {
  /** The usage of streams is asked for. */
  readonly forces: boolean;
  /** For one request that is about to be sent. `end` is to be called when its response has closed. */
  open(route: Route, record: RequestRecord, sent: UpstreamRequest): { shaper: Shaper | undefined; end(): void };
}

export interface MeteringDeps {
  fleet: Fleet;
  names: ModelNames;
  metrics: Pick<Metrics, 'tokens' | 'usage' | 'cacheReports'>;
  usage: UsageConfig;
  compat: CompatConfig;
  limits: LimitsConfig;
  /** Requests have keys. */
  keyed: boolean;
}

export function createMetering({ fleet, names, metrics, usage, compat, limits, keyed }: MeteringDeps): Metering {
  const metering: (typeof METERING)[number] = usage.metering ?? (keyed ? 'full' : 'passive');

  const reportOf = (record: RequestRecord, sent: UpstreamRequest) => async () => {
    const id = record.crystalKvId;
    const peer = fleet.known.find(({ url }) => url === record.backend)?.peer;
    const text =
      id === undefined || peer === undefined
        ? undefined
        : await cacheReport((choice) => peer.request(id, choice), sent.output?.choices ?? 1, usage.report_timeout_ms);
    metrics.cacheReports.inc({ outcome: text === undefined ? 'missing' : 'told' });
    return text;
  };

  return {
    forces: metering === 'full',
    open(route, record, sent) {
      const generates = route.body === 'generation';
      // Names that are not known yet are asked for now, so that they are at the end.
      names.label(record.model);
      const meter = metering === 'off' || !sent.costs ? undefined : new Meter(record, estimatesOf(route, sent, limits));
      const alias = compat.reasoning_content && route.path === '/v1/chat/completions';
      const report = generates && sent.report ? reportOf(record, sent) : undefined;
      const needed = meter !== undefined || alias || report !== undefined;
      return {
        shaper: needed ? createShaper({ form: route.form, meter, shows: sent.usageShown, alias, report }) : undefined,
        end() {
          if (meter === undefined) return;
          if (record.toldError?.first !== true)
            meter.close(record.stop.signal.aborted && record.firstByteAt === undefined && record.backend !== undefined);
          metrics.usage.inc({ source: meter.source });
          const key = record.key?.name ?? NO_KEY;
          const model = names.label(record.model);
          const { input, output } = record.tokens;
          if (input > 0) metrics.tokens.inc({ key, model, direction: 'input' }, input);
          if (output > 0) metrics.tokens.inc({ key, model, direction: 'output' }, output);
        },
      };
    },
  };
}

/** What a request may cost whose response does not say it. Tokens that are only counted or shown cost nothing. */
function estimatesOf({ body, free }: Route, sent: UpstreamRequest, limits: LimitsConfig): Estimates {
  const computes = body !== 'raw' && free !== true;
  return {
    prompt: computes ? promptEstimate(sent, limits) : 0,
    generates: body === 'generation' || body === 'upload',
    batch: (sent.output?.prompts ?? 1) > 1,
  };
}
