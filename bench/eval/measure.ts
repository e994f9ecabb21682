import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { budgetBlocks } from '../ask.ts';
import { countExact, EVERY_STEP, runRound } from '../rounds.ts';
import { answerTokenLimit, makePrograms } from '../workload.ts';
import { startOracle } from './oracle.ts';
import type { Row } from './row.ts';
import type { Setting } from './setting.ts';

export const SINK_TOKENS = 4;
export const RECENT_TOKENS = 64;
export const CONCURRENCY = 16;

const engine = (blockSize: number) => ({
  block_size: blockSize,
  pool_blocks: 65_536 / blockSize,
  sink_tokens: SINK_TOKENS,
  recent_tokens: RECENT_TOKENS,
  lockstep: true,
  lockstep_timeout_ms: 10_000,
  log_level: 'warn',
});

/**
 * Sends the programs of a setting through the whole system, with a full cache and then under every candidate and share.
 * `onRow` is told of each row when it is there, with the full cache's; `log` gets lines for people.
 */
export async function measure(
  setting: Setting,
  seed: number,
  onRow: (row: Row, full: Row) => void,
  log: (text: string) => void,
): Promise<void> {
  const { form, lines, blockSize, candidates } = setting;
  const programs = makePrograms(seed, setting.programs, lines, form);
  const profiles = Object.fromEntries(candidates.map(({ key, profile }) => [key, profile]));
  const cluster = await startCluster({
    config: {
      engine: engine(blockSize),
      policy_service: { ...EVERY_STEP, default_profile: 'full', log_level: 'warn' },
      gateway: { log_level: 'warn' },
      profiles: { full: { policy: 'full' }, ...profiles },
    },
  });
  const run = async (
    at: Cluster,
    key: string,
    title: string,
    share: number | undefined,
    budget: number | undefined,
  ) => {
    const where = share === undefined ? '' : ` at ${Math.round(share * 100)} %`;
    log(`${form}, ${lines} lines, blocks of ${blockSize}: ${title}${where} ... `);
    const cache = { profile: key, ...(budget === undefined ? {} : { budget_tokens: budget * blockSize }) };
    const maxTokens = answerTokenLimit(lines, form);
    const round = await runRound(at, { programs, cache, concurrency: CONCURRENCY, maxTokens, blockSize });
    log(`${countExact(round.answers)} of ${programs.length} exact, ${round.seconds.toFixed(0)} s\n`);
    return { setting, key, title, share, budget, round } satisfies Row;
  };
  try {
    const full = await run(cluster, 'full', 'full cache', undefined, undefined);
    onRow(full, full);
    for (const share of setting.shares) {
      const budget = budgetBlocks(full.round.answers, share, blockSize);
      for (const { key, title } of candidates) onRow(await run(cluster, key, title, share, budget), full);
      if (setting.oracle) onRow(await bound(setting, seed, share, budget, log), full);
    }
  } finally {
    await cluster.close();
  }
}

/** The oracle has an engine of its own, and no gateway: it must know which program a request is. */
async function bound(
  setting: Setting,
  seed: number,
  share: number,
  budget: number,
  log: (text: string) => void,
): Promise<Row> {
  const { form, lines, blockSize } = setting;
  const programs = makePrograms(seed, setting.programs, lines, form);
  const oracle = await startOracle(programs, budget);
  const cluster = await startCluster({
    config: { engine: engine(blockSize) },
    start: ['engine'],
    policyAddress: oracle.address,
  });
  try {
    await oracle.attached;
    log(`${form}, ${lines} lines, blocks of ${blockSize}: oracle at ${Math.round(share * 100)} % ... `);
    const maxTokens = answerTokenLimit(lines, form);
    const round = await runRound(
      { ...cluster, gatewayUrl: cluster.engineUrl },
      {
        programs,
        cache: undefined,
        concurrency: CONCURRENCY,
        maxTokens,
        blockSize,
        memory: oracle.watch,
        xargsOf: (index) => ({ crystalkv_id: `${index}` }),
      },
    );
    log(`${countExact(round.answers)} of ${programs.length} exact, ${round.seconds.toFixed(0)} s\n`);
    return { setting, key: 'oracle', title: 'oracle (blocks)', share, budget, round };
  } finally {
    await cluster.close();
    oracle.close();
  }
}
