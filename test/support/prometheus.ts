import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parse, stringify } from 'yaml';
import { startChild } from '../../scripts/child.ts';
import { freePorts } from '../../scripts/ports.ts';
import { until } from '../../scripts/until.ts';

/** Why tests that need it are skipped; false when it is there. */
export const withoutPrometheus =
  spawnSync('prometheus', ['--version']).error === undefined
    ? false
    : 'prometheus is not installed (Debian: prometheus)';

export interface Series {
  metric: Readonly<Record<string, string>>;
  value: number;
}

export interface Prometheus {
  /** The value now. Rejects with Prometheus' own words when it refuses the query. */
  query(expression: string): Promise<Series[]>;
  /** Resolves once it has read every target. */
  allUp(): Promise<void>;
  /** Rules by name, with what became of their last evaluation. */
  rules(): Promise<{ name: string; health: string; lastError: string }[]>;
  /** Resolves when no process and no file is left. */
  close(): Promise<void>;
}

interface RuleGroup {
  interval?: string;
}

const EVERY = '2s';

/** A real Prometheus that reads `targets` (URLs of metrics by job) and evaluates the rules, every two seconds. */
export async function startPrometheus(
  targets: Readonly<Record<string, string>>,
  ruleFiles: readonly string[],
): Promise<Prometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-prometheus-'));
  const [port] = await freePorts(1);
  const file = join(folder, 'prometheus.yml');
  const copies = ruleFiles.map((path) => {
    const { groups } = parse(readFileSync(path, 'utf8'), { merge: true }) as { groups: RuleGroup[] };
    for (const group of groups) delete group.interval;
    const copy = join(folder, basename(path));
    writeFileSync(copy, stringify({ groups }));
    return copy;
  });
  const jobs = Object.entries(targets).map(([job_name, url]) => {
    const { host, pathname } = new URL(url);
    return { job_name, metrics_path: pathname, static_configs: [{ targets: [host] }] };
  });
  const global = { scrape_interval: EVERY, scrape_timeout: EVERY, evaluation_interval: EVERY };
  writeFileSync(file, stringify({ global, rule_files: copies, scrape_configs: jobs }));
  const command = [
    'prometheus',
    ...[
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
  ];
  const child = await startChild(command, { stdio: 'ignore' });

  const get = async (path: string): Promise<unknown> => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`, { signal: AbortSignal.timeout(30_000) });
    const { status, error, data } = (await response.json()) as { status: string; error?: string; data: unknown };
    if (status !== 'success') throw new Error(`Prometheus says: ${error}`);
    return data;
  };

  const query = async (expression: string): Promise<Series[]> => {
    const { result } = (await get(`query?query=${encodeURIComponent(expression)}`)) as {
      result: { metric: Record<string, string>; value: [time: number, value: string] }[];
    };
    return result.map(({ metric, value }) => ({ metric, value: Number(value[1]) }));
  };

  return {
    query,
    async allUp() {
      let count = 0;
      const up = async () => {
        count = (await query('max_over_time(up[5m]) == 1').catch(() => [])).length;
        return count === jobs.length;
      };
      await until(up, `Prometheus reads ${jobs.length} targets`, { ms: 60_000, pollMs: 50, progress: () => count });
    },
    async rules() {
      const { groups } = (await get('rules')) as {
        groups: { rules: { name: string; health: string; lastError?: string }[] }[];
      };
      return groups.flatMap(({ rules }) =>
        rules.map(({ name, health, lastError = '' }) => ({ name, health, lastError })),
      );
    },
    async close() {
      await child.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
