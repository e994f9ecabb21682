import { Gauge, type Registry } from 'prom-client';
import type { ModeLabel } from './labels.ts';

/** Requests that share their labels, added up. */
export interface RequestGroup {
  profile: string;
  policy: string;
  mode: ModeLabel;
  phase: string;
  requests: number;
  resident: number;
  full: number;
}

/** What the metrics read from an engine at scrape time. */
export interface EngineReading {
  engine: string;
  model: string;
  blockBytes: number;
  pool: { free: number; total: number; waiting: number; running: number };
  groups: readonly RequestGroup[];
  cold: number;
}

/** Gauges whose values are read at scrape time, so that engines and requests that have left do not linger. */
export function createStateMetrics(registry: Registry, readEngines: () => Iterable<EngineReading>): void {
  let read: readonly EngineReading[] | undefined;
  /** All gauges of a scrape are collected in one turn, so that one pass over the requests serves them all. */
  const readings = (): readonly EngineReading[] => {
    if (read === undefined) {
      read = [...readEngines()];
      queueMicrotask(() => {
        read = undefined;
      });
    }
    return read;
  };
  const state = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    show: (gauge: Gauge<L>, engine: EngineReading) => void,
  ) =>
    new Gauge({
      name: `crystalkv_${name}`,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        for (const engine of readings()) show(this, engine);
      },
    });
  const GROUP = ['engine', 'profile', 'policy', 'phase'] as const;

  state(
    'engine_info',
    '1 for each attached engine; joins its model to the other metrics',
    ['engine', 'model'],
    (gauge, it) => gauge.set({ engine: it.engine, model: it.model }, 1),
  );
  state('block_bytes', 'Bytes of keys and values in one KV block', ['engine'], (gauge, it) =>
    gauge.set({ engine: it.engine }, it.blockBytes),
  );
  state('blocks_resident', 'KV blocks that requests hold', GROUP, (gauge, { engine, groups }) => {
    for (const { profile, policy, phase, resident } of groups) gauge.inc({ engine, profile, policy, phase }, resident);
  });
  state('blocks_full', 'KV blocks that requests would hold with full caches', GROUP, (gauge, { engine, groups }) => {
    for (const { profile, policy, phase, full } of groups) gauge.inc({ engine, profile, policy, phase }, full);
  });
  state('requests', 'Known requests', ['engine', 'profile', 'policy', 'mode'], (gauge, { engine, groups }) => {
    for (const { profile, policy, mode, requests } of groups) gauge.inc({ engine, profile, policy, mode }, requests);
  });
  state('cold_requests', 'Requests that are spared until their history is known again', ['engine'], (gauge, it) =>
    gauge.set({ engine: it.engine }, it.cold),
  );
  state('pool_blocks', "KV blocks in the engine's pool", ['engine', 'state'], (gauge, { engine, pool }) => {
    gauge.set({ engine, state: 'free' }, pool.free);
    gauge.set({ engine, state: 'used' }, pool.total - pool.free);
  });
  state(
    'pool_requests',
    'Requests that the engine counts as running or waiting',
    ['engine', 'state'],
    (gauge, { engine, pool }) => {
      gauge.set({ engine, state: 'running' }, pool.running);
      gauge.set({ engine, state: 'waiting' }, pool.waiting);
    },
  );
}
