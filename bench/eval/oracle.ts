/**
 * The upper bound of every policy that evicts blocks: a policy service that knows the program. It evicts the blocks whose
 * values are needed last or never (L. A. Belady, 1966), by the task's own ground truth. For evaluation only.
 */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import type { Program } from '../../model/program.ts';
import {
  type AttachRequest,
  type AttachResponse,
  type Hello,
  KvPolicyService,
  type RequestStep,
  type Started,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import type { MemoryWatch } from '../memory.ts';
import { mean } from '../statistics.ts';

export interface Oracle {
  readonly address: string;
  /** Resolves when an engine's requests are known. */
  readonly attached: Promise<void>;
  /** Counts what is in the cache from now on. */
  watch(): MemoryWatch;
  close(): void;
}

interface Known {
  started: Started;
  program: Program;
  holes: Set<number>;
}

/**
 * Starts one for an engine in lockstep. A request's `crystalkv_id` is the index of its program; it may keep
 * `budgetBlocks` blocks beyond its prompt. As long as an answer is right its tokens are the program's own.
 */
export async function startOracle(programs: readonly Program[], budgetBlocks: number): Promise<Oracle> {
  const server = new Server();
  let onAttached = () => {};
  const attached = new Promise<void>((resolve) => {
    onAttached = resolve;
  });
  let pool: number[] = [];
  let output: number[] = [];
  let peaks = new Map<number, number>();
  const note = ({ handle, computedTokens }: RequestStep, { started, holes }: Known, blockSize: number) => {
    if (computedTokens <= started.promptTokens) return;
    const blocks = Math.ceil(computedTokens / blockSize) - Math.ceil(started.promptTokens / blockSize) - holes.size;
    output.push(blocks);
    peaks.set(handle, Math.max(peaks.get(handle) ?? 0, blocks));
  };
  const attach = (stream: ServerDuplexStream<AttachRequest, AttachResponse>) => {
    const known = new Map<number, Known>();
    let hello: Hello | undefined;
    let sequence = 0n;
    const start = (started: Started) => {
      const program = programs[Number(started.crystalkvId)];
      if (program !== undefined) known.set(started.handle, { started, program, holes: new Set(started.evicted) });
    };
    stream.on('data', ({ message }: AttachRequest) => {
      if (message?.$case === 'hello') {
        hello = message.value;
        stream.write({ message: { $case: 'welcome', value: { protocol: 1 } } });
        const configure = { headGroups: [], measureEvery: 0, probeTokens: 0, statistics: undefined };
        stream.write({ message: { $case: 'configure', value: configure } });
      } else if (message?.$case === 'snapshot') {
        message.value.requests.forEach(start);
        onAttached();
      } else if (message?.$case === 'started') start(message.value);
      else if (message?.$case === 'finished') known.delete(message.value.handle);
      else if (message?.$case === 'preempted') known.get(message.value.handle)?.holes.clear();
      else if (message?.$case === 'step' && !message.value.more) {
        const { pool: state } = message.value;
        if (state !== undefined) pool.push(state.totalBlocks - state.freeBlocks);
        const requests = message.value.requests.flatMap((entry) => {
          const request = known.get(entry.handle);
          if (request !== undefined) note(entry, request, (hello as Hello).blockSize);
          const evict = request === undefined ? [] : choose(request, entry, hello as Hello, budgetBlocks);
          for (const block of evict) request?.holes.add(block);
          if (evict.length === 0) return [];
          return { handle: entry.handle, epoch: entry.epoch, evict, probe: false, releaseThinking: false, merges: [] };
        });
        sequence += 1n;
        const value = { sequence, basedOnStep: message.value.step, requests, stopProbes: [] };
        stream.write({ message: { $case: 'plan', value } });
      }
    });
    stream.on('end', () => stream.end());
    stream.on('error', () => {});
  };
  server.addService({ attach: KvPolicyService.attach }, { attach });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return {
    address: `127.0.0.1:${port}`,
    attached,
    watch() {
      pool = [];
      output = [];
      peaks = new Map();
      return {
        stop: async () => ({
          meanPoolBlocks: mean(pool),
          peakPoolBlocks: pool.reduce((most, blocks) => Math.max(most, blocks), 0),
          meanOutputBlocks: mean(output),
          peakOutputBlocks: [...peaks.values()],
        }),
      };
    },
    close: () => server.forceShutdown(),
  };
}

function choose({ started, program, holes }: Known, entry: RequestStep, hello: Hello, budgetBlocks: number): number[] {
  const { blockSize, sinkTokens, recentTokens } = hello;
  const firstOutput = Math.ceil(started.promptTokens / blockSize);
  const first = Math.ceil(Math.max(started.promptTokens, sinkTokens) / blockSize);
  const end = Math.floor((entry.computedTokens - recentTokens) / blockSize);
  // as the fixed controller: the block that the next token may need has to fit as well
  const resident = Math.ceil((entry.computedTokens + 1) / blockSize) - firstOutput - holes.size;
  const over = resident - budgetBlocks;
  if (over <= 0) return [];
  const candidates = Array.from({ length: Math.max(0, end - first) }, (_, i) => first + i).filter((b) => !holes.has(b));
  const need = nextNeeds(program, entry.computedTokens, blockSize);
  return candidates
    .sort((a, b) => (need.get(b) ?? Infinity) - (need.get(a) ?? Infinity) || a - b)
    .slice(0, over)
    .sort((a, b) => a - b);
}

/** For each block the index of the first token after `tokens` that is looked up in it: the newest copy is what is read. */
function nextNeeds(program: Program, tokens: number, blockSize: number): Map<number, number> {
  const needs = new Map<number, number>();
  for (const { tokenIndex, earlierPositions } of program.lookups) {
    const copy = earlierPositions.at(-1);
    if (tokenIndex <= tokens || copy === undefined || copy >= tokens) continue;
    const block = Math.floor(copy / blockSize);
    if (!needs.has(block)) needs.set(block, tokenIndex);
  }
  return needs;
}
