import { type Answer, ask, type CacheOption } from '../../bench/ask.ts';
import { makePrograms } from '../../bench/workload.ts';
import { readMetrics, total } from '../../scripts/metrics/text.ts';
import { until } from '../../scripts/until.ts';

/** What a whole system takes on a busy machine. */
export const PATIENCE = { ms: 60_000, pollMs: 50 } as const;

export const BLOCK_SIZE = 16;
/** More than any right answer to a program of 40 lines takes. */
export const MAX_TOKENS = 900;

/** Profiles of every policy, and quiet logs. Sections that a test adds replace these. */
export const CONFIG = {
  engine: { log_level: 'warn', pool_blocks: 1024 },
  gateway: { log_level: 'warn' },
  policy_service: { measure_every: 1, measure_every_idle: 1, log_level: 'info' },
} as const;

/** Resolves when a condition on a metric holds; the value is the sum over its labels. */
export function metricReaches(
  url: string,
  name: string,
  holds: (value: number) => boolean,
  labels: Readonly<Record<string, string>> = {},
): Promise<number> {
  const reached = async () => {
    const samples = await readMetrics(`${url}/metrics`).catch(() => []);
    const value = total(samples, name, labels);
    return samples.length > 0 && holds(value) && value;
  };
  return until(reached, `${name} at ${url}`, PATIENCE);
}

export const metric = async (url: string, name: string): Promise<number> =>
  total(await readMetrics(`${url}/metrics`), name);

/** Clients that send one program after the other until they are told to stop. */
export interface Load {
  /** Answers so far. */
  readonly answers: readonly Answer[];
  /** Resolves when this many more answers have come. Rejects when a client saw an error. */
  more(count: number): Promise<void>;
  /** Lets what runs finish. Rejects when a client saw an error. */
  stop(): Promise<readonly Answer[]>;
}

/** Keeps `clients` requests under way at a time. */
export function startLoad(gatewayUrl: string, options: { clients: number; lines: number; cache: CacheOption }): Load {
  const answers: Answer[] = [];
  let stopped = false;
  let seed = 1;
  const client = async () => {
    while (!stopped) {
      seed += 1;
      const [program] = makePrograms(seed, 1, options.lines);
      if (program === undefined) throw new Error('no program was made');
      answers.push(await ask(gatewayUrl, program, { maxTokens: MAX_TOKENS, cache: options.cache }));
    }
  };
  let failed: unknown;
  const clients = Array.from({ length: options.clients }, client).map((running) =>
    running.catch((error: unknown) => {
      failed ??= error;
    }),
  );
  const check = () => {
    if (failed !== undefined) throw failed;
  };
  return {
    answers,
    more: async (count) => {
      const wanted = answers.length + count;
      const came = () => {
        check();
        return answers.length >= wanted;
      };
      await until(came, `${count} more answers`, { ...PATIENCE, progress: () => answers.length });
    },
    stop: async () => {
      stopped = true;
      await Promise.all(clients);
      check();
      return answers;
    },
  };
}
