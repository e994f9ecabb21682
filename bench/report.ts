import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../scripts/processes.ts';

/** The results that are committed. */
export const RESULTS = join(ROOT, 'bench/results');
const WEIGHTS = join(ROOT, 'model/crystal-mini/model.safetensors');
const NAME = /^[a-z0-9]+([-_][a-z0-9]+)*$/;

type Scalar = string | number | boolean;

export interface Report<Row = unknown> {
  /** What the figures depend on: workload, seed, options. Machine, Node and weights are added. */
  conditions: Readonly<Record<string, Scalar>>;
  /** Finite numbers; the unit is in the name. */
  figures: Readonly<Record<string, number>>;
  /** The measurements behind the figures. */
  rows: readonly Row[];
}

/**
 * Writes `<folder>/<name>.json` and returns its path. Throws RangeError, and writes nothing, when the name is not
 * lower-case words or a figure is not a finite number.
 */
export function writeReport(name: string, report: Report, folder: string): string {
  if (!NAME.test(name)) throw new RangeError(`the name of a report must match ${NAME}, got "${name}"`);
  const figures = Object.entries(report.figures);
  if (figures.length === 0) throw new RangeError(`the report ${name} has no figures`);
  for (const [figure, value] of figures) {
    if (!NAME.test(figure)) throw new RangeError(`the name of a figure must match ${NAME}, got "${figure}"`);
    if (!Number.isFinite(value)) throw new RangeError(`${name}: the figure ${figure} must be finite, got ${value}`);
  }
  const content = {
    bench: name,
    commit: commit(),
    date: new Date().toISOString(),
    conditions: { ...machine(), ...report.conditions },
    figures: report.figures,
    rows: report.rows,
  };
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${name}.json`);
  writeFileSync(path, `${JSON.stringify(content, null, 2)}\n`);
  return path;
}

/** What `writeReport` last wrote of a name; undefined: nothing. The rows are as the bench of that name makes them. */
export function readReport<Row>(name: string, folder: string): Report<Row> | undefined {
  const path = join(folder, `${name}.json`);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Report<Row>) : undefined;
}

function machine(): Record<string, Scalar> {
  const cores = cpus();
  const conditions: Record<string, Scalar> = {
    cpu: cores[0]?.model.trim() || 'unknown',
    cores: cores.length,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
  };
  if (existsSync(WEIGHTS)) {
    const hash = createHash('sha256').update(readFileSync(WEIGHTS)).digest('hex');
    conditions['model'] = `crystal-mini ${hash.slice(0, 12)}`;
  }
  return conditions;
}

/** Short commit; `-dirty` when anything but earlier results differs from it; `unversioned` outside a repository. */
function commit(): string {
  const git = (...args: string[]) =>
    execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const head = git('rev-parse', '--short', 'HEAD');
    const changed = git('status', '--porcelain', '--', '.', ':!bench/results');
    return changed === '' ? head : `${head}-dirty`;
  } catch {
    return 'unversioned';
  }
}
