import { startCluster } from '../../scripts/cluster.ts';
import { type Answer, budgetBlocks } from '../ask.ts';
import { countExact, type Round, runRound } from '../rounds.ts';
import { mean } from '../statistics.ts';
import { answerTokenLimit, makePrograms } from '../workload.ts';
import { type BackendName, CONCURRENCY, engineConfig, startEmbedded } from './backend.ts';
import { startOracle } from './oracle.ts';
import type { Row } from './row.ts';
import type { Setting } from './setting.ts';
import { startVllmBackend } from './vllm-backend.ts';

const STARTERS = { embedded: startEmbedded, vllm: startVllmBackend } as const;

/**
 * Sends the programs of a setting through the whole system, with a full cache and then under every candidate and share.
 * `onRow` is told of each row when it is there, with the full cache's; `log` gets text for people.
 */
export async function measure(
  backendName: BackendName,
  setting: Setting,
  seed: number,
  onRow: (row: Row, full: Row) => void,
  log: (text: string) => void,
): Promise<void> {
  const { form, lines, blockSize, candidates } = setting;
  const programs = makePrograms(seed, setting.programs, lines, form);
  const maxTokens = answerTokenLimit(lines, form);
  const told = async (title: string, share: number | undefined, run: () => Promise<Round>) => {
    const where = share === undefined ? '' : ` at ${Math.round(share * 100)} %`;
    log(`${form}, ${lines} lines, blocks of ${blockSize}: ${title}${where} ... `);
    const round = await run();
    log(`${countExact(round.answers)} of ${programs.length} exact, ${round.seconds.toFixed(0)} s\n`);
    return round;
  };
  const backend = await STARTERS[backendName](candidates, blockSize);
  try {
    const run = (key: string, budgetTokens: number | undefined) => () =>
      backend.run({ programs, profile: key, budgetTokens, maxTokens });
    const whole = await told('full cache', undefined, run('full', undefined));
    const full: Row = { setting, key: 'full', title: 'full cache', share: undefined, budget: undefined, round: whole };
    onRow(full, full);
    for (const share of setting.shares) {
      const budget = budgetBlocks(full.round.answers, share, blockSize);
      if (setting.limit === 'pool') {
        const pool = poolBlocks(whole.answers, share, blockSize);
        const tight = await startEmbedded(candidates, blockSize, pool);
        try {
          for (const { key, title } of candidates) {
            const round = await told(title, share, () =>
              tight.run({ programs, profile: key, budgetTokens: undefined, maxTokens }),
            );
            onRow({ setting, key, title, share, budget: undefined, round }, full);
          }
        } finally {
          await tight.close();
        }
        continue;
      }
      for (const { key, title } of candidates) {
        const round = await told(title, share, run(key, budget * blockSize));
        onRow({ setting, key, title, share, budget, round }, full);
      }
      if (!setting.oracle || backendName !== 'embedded') continue;
      const round = await told('oracle', share, () => runOracle(programs, budget, maxTokens, blockSize));
      onRow({ setting, key: 'oracle', title: 'oracle (blocks)', share, budget, round }, full);
    }
  } finally {
    await backend.close();
  }
}

/** `share` of the blocks that the requests which run at the same time hold at their ends, with a whole cache. */
function poolBlocks(answers: readonly Answer[], share: number, blockSize: number): number {
  const blocks = answers.map((it) => Math.ceil((it.promptTokens + it.generatedTokens) / blockSize));
  return Math.ceil(share * CONCURRENCY * mean(blocks));
}

/** The oracle has an engine of its own, and no gateway: it must know which program a request is. */
async function runOracle(
  programs: Parameters<typeof startOracle>[0],
  budget: number,
  maxTokens: number,
  blockSize: number,
): Promise<Round> {
  const oracle = await startOracle(programs, budget);
  try {
    const cluster = await startCluster({
      config: { engine: engineConfig(blockSize) },
      start: ['engine'],
      policyAddress: oracle.address,
    });
    try {
      await oracle.attached;
      return await runRound(
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
    } finally {
      await cluster.close();
    }
  } finally {
    oracle.close();
  }
}
