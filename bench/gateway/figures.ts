import { median, round } from '../statistics.ts';
import type { Measured } from './loads.ts';
import type { TargetName } from './targets.ts';

/** One measurement of one target. */
export interface Row {
  round: number;
  target: TargetName;
  /** The load, as the table of cases names it. */
  case: string;
  measured: Measured;
  /** Of the target's processes during the measurement, per request; with streams per event. */
  cpu_us: number;
  /** Resident memory of the target's processes at its end. */
  rss_mb: number;
}

const OURS = 'gateway' satisfies TargetName;
const BASE = 'direct' satisfies TargetName;

/**
 * Medians over rounds. What is compared is compared within a round, so that both were measured seconds apart: ratios
 * are ours over the peer's, added times ours (or a peer's) less those of the upstream itself. What was not measured,
 * or only with failures, has no figure.
 */
export function figuresOf(rows: readonly Row[]): Record<string, number> {
  const figures: Record<string, number> = {};
  const put = (name: string, values: readonly number[], digits = 3) => {
    const finite = values.filter(Number.isFinite);
    if (finite.length > 0) figures[name.replaceAll('-', '_')] = round(median(finite), digits);
  };
  const targets = [...new Set(rows.map(({ target }) => target))];
  const peers = targets.filter((name) => name !== OURS && name !== BASE);
  const cases = [...new Set(rows.map((row) => row.case))];
  const own = (name: string, target: TargetName) => (target === OURS ? name : `${target}_${name}`);

  for (const peer of peers) put(`rps_ratio_${peer}`, compare(rows, 'closed', OURS, peer, rps, ratio), 2);
  for (const peer of peers)
    put(
      `cpu_ratio_${peer}`,
      compare(rows, 'closed', peer, OURS, (row) => row.cpu_us, ratio),
      2,
    );
  for (const target of targets.filter((name) => name !== BASE)) {
    const added = (name: string, which: string, value: Value) =>
      put(own(name, target), compare(rows, which, target, BASE, value, difference));
    added('added_p50_ms', 'single', p50);
    added('added_p99_ms', 'single', p99);
    for (const which of cases.filter((name) => name.startsWith('open_'))) {
      added(`${which}_added_p50_ms`, which, p50);
      added(`${which}_added_p99_ms`, which, p99);
    }
    added('stream_event_p50_ms', 'streams', eventP50);
    added('stream_event_p99_ms', 'streams', eventP99);
    added('added_first_event_ms', 'streams', firstEvent);
  }
  for (const target of targets) {
    put(own('rps', target), values(rows, 'closed', target, rps), 0);
    put(own('events_per_second', target), values(rows, 'streams', target, eventRate), 0);
    if (target === BASE) continue;
    put(
      own('cpu_us_per_request', target),
      values(rows, 'closed', target, (row) => row.cpu_us),
      1,
    );
    put(
      own('cpu_us_per_event', target),
      values(rows, 'streams', target, (row) => row.cpu_us),
      1,
    );
    const memory = rows.filter((row) => row.target === target).map((row) => row.rss_mb);
    if (memory.length > 0) figures[own('rss_mb', target).replaceAll('-', '_')] = round(Math.max(...memory), 0);
  }
  return figures;
}

/** The most events a second of one target with so many streams at once. */
export interface CapacityRow {
  target: TargetName;
  streams: number;
  eventsPerSecond: number;
  endedBy: 'target' | 'load generator';
}

/** Of each target, and ours over each peer's. */
export function capacityFigures(rows: readonly CapacityRow[]): Record<string, number> {
  const figures: Record<string, number> = {};
  for (const { target, streams, eventsPerSecond } of rows) {
    const own = target === OURS ? '' : `${target.replaceAll('-', '_')}_`;
    figures[`${own}events_per_second_${streams}`] = eventsPerSecond;
    const ours = rows.find((row) => row.target === OURS && row.streams === streams);
    if (target === OURS || ours === undefined || eventsPerSecond === 0) continue;
    figures[`events_ratio_${target.replaceAll('-', '_')}_${streams}`] = round(
      ours.eventsPerSecond / eventsPerSecond,
      2,
    );
  }
  return figures;
}

type Value = (row: Row) => number;

const field =
  (name: string): Value =>
  ({ measured }) =>
    (measured as unknown as Record<string, number>)[name] ?? Number.NaN;
const rps = field('rps');
const p50 = field('p50_ms');
const p99 = field('p99_ms');
const eventP50 = field('event_p50_ms');
const eventP99 = field('event_p99_ms');
const firstEvent = field('first_event_p50_ms');
const eventRate = field('events_per_second');

const ratio = (a: number, b: number) => a / b;
const difference = (a: number, b: number) => a - b;

/** A measurement with failures says nothing about speed. */
const sound = ({ measured }: Row) =>
  measured.failed === 0 && measured.requests > 0 && !(measured.kind === 'open' && measured.not_sent > 0);

function values(rows: readonly Row[], which: string, target: TargetName, value: Value): number[] {
  return rows.filter((row) => row.case === which && row.target === target && sound(row)).map(value);
}

function compare(
  rows: readonly Row[],
  which: string,
  target: TargetName,
  other: TargetName,
  value: Value,
  by: (a: number, b: number) => number,
): number[] {
  const of = (name: TargetName) => rows.filter((row) => row.case === which && row.target === name && sound(row));
  return of(target).flatMap((row) => {
    const match = of(other).find((candidate) => candidate.round === row.round);
    return match === undefined ? [] : [by(value(row), value(match))];
  });
}
