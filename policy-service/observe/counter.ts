import { Counter, type Registry } from 'prom-client';
import type { RequestPhase } from '../../common/protocol.ts';
import type { ModeLabel } from './labels.ts';

/** The phases in which requests lose blocks. */
export const LOSING_PHASES: readonly RequestPhase[] = ['thinking', 'answer'];

/** The labels of a request's counters. */
export interface RequestLabels {
  engine: string;
  profile: string;
  policy: string;
  mode: ModeLabel;
}

/** What counters belong to, and what tells one owner from another. */
interface Owners {
  service: undefined;
  engine: { engine: string };
  request: RequestLabels;
}
type Owner = keyof Owners;

/**
 * Whose counter it is, and which of its series start at 0 together with the owner: a rate needs the value before the
 * first event.
 */
export interface Ownership<O extends Owner, L extends string> {
  owner: O;
  labels: readonly L[];
  series(owner: Owners[O]): readonly Record<L, string>[];
}

/** Registers counters, starts their series when an owner appears, and ends those of an engine. */
export function createCounters(registry: Registry) {
  const ofEngines: Counter<string>[] = [];
  const starts: { [O in Owner]: ((owner: Owners[O]) => void)[] } = { service: [], engine: [], request: [] };
  return {
    counter<O extends Owner, L extends string>(name: string, help: string, { owner, labels, series }: Ownership<O, L>) {
      const registers = [registry];
      const counter = new Counter({ name: `crystalkv_${name}`, help, labelNames: labels, registers });
      if (owner !== 'service') ofEngines.push(counter);
      starts[owner].push((one) => {
        for (const values of series(one)) counter.inc(values, 0);
      });
      return counter;
    },

    start<O extends Owner>(owner: O, one: Owners[O]): void {
      for (const start of starts[owner]) start(one);
    },

    /** Takes the series of engines, and of their requests, away, in one pass over all series. */
    async forget(engines: ReadonlySet<string>): Promise<void> {
      for (const counter of ofEngines) {
        const { values } = await counter.get();
        for (const { labels } of values) if (engines.has(String(labels['engine']))) counter.remove(labels);
      }
    },
  };
}

/** One series for each value of the label. */
export function ofService<L extends string>(label: L, values: readonly string[]): Ownership<'service', L> {
  return {
    owner: 'service',
    labels: [label],
    series: () => values.map((value) => ({ [label]: value }) as Record<L, string>),
  };
}

/** One series for each engine. */
export const ofEngine: Ownership<'engine', 'engine'> = {
  owner: 'engine',
  labels: ['engine'],
  series: (engine) => [engine],
};

/** One series for each engine and value of the label. */
export function ofEngineBy<L extends string>(label: L, values: readonly string[]): Ownership<'engine', 'engine' | L> {
  type Labels = Record<'engine' | L, string>;
  const series = ({ engine }: Owners['engine']) => values.map((value) => ({ engine, [label]: value }) as Labels);
  return { owner: 'engine', labels: ['engine', label], series };
}

/** What shadow mode goes by: the tokens that an engine marked, or the masses of whole blocks. */
export const JUDGED = ['tokens', 'blocks'] as const;

/** One series for each phase in which requests lose blocks, and each way to judge it. Only for shadowed requests. */
export const ofShadowed: Ownership<'request', keyof RequestLabels | 'phase' | 'judged'> = {
  owner: 'request',
  labels: ['engine', 'profile', 'policy', 'mode', 'phase', 'judged'],
  series: (request) =>
    request.mode === 'shadow' || request.mode === 'canary'
      ? LOSING_PHASES.flatMap((phase) => JUDGED.map((judged) => ({ ...request, phase, judged })))
      : [],
};

/** One series for the requests that share their labels. */
export const ofRequest: Ownership<'request', keyof RequestLabels> = {
  owner: 'request',
  labels: ['engine', 'profile', 'policy', 'mode'],
  series: (request) => [request],
};
