import type { EndReason } from '../../common/protocol.ts';
import { ProbeAnswer } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { StepModel } from '../model/step-model.ts';
import type { BlockPool } from './block-pool.ts';
import type { LiveSequences } from './live-sequences.ts';
import type { CoreOptions } from './options.ts';
import type { Reporter } from './reporter.ts';
import type { Scheduler } from './scheduler.ts';
import { Sequence } from './sequence.ts';

/** The parts of the engine that probes use. */
export interface ProbeParts {
  options: CoreOptions;
  pool: BlockPool;
  live: LiveSequences;
  scheduler: Scheduler;
  reporter: Reporter;
  model: Pick<StepModel, 'answerQueries'>;
}

/** The answer probes of an engine, from start to end, and what they cost. */
export class Probes {
  readonly #parts: ProbeParts;
  /** Probes that were started. */
  started = 0;
  /** Tokens that were computed for probes that have ended. */
  tokens = 0;

  constructor(parts: ProbeParts) {
    this.#parts = parts;
  }

  /** Starts an answer probe of a request, which runs from the next step on, or says why not. */
  start(parent: Sequence): ProbeAnswer {
    const { options, pool, live, scheduler, reporter, model } = this.#parts;
    const suffix = options.probeSuffix;
    const tokens = reporter.probeTokens;
    if (suffix === undefined || tokens === 0 || parent.phase !== 'thinking' || parent.generated === 0) {
      return ProbeAnswer.PROBE_ANSWER_UNSUPPORTED;
    }
    const shared = pool.filledBy(parent.computed);
    const longest = parent.tokenIds.length + suffix.length + tokens;
    const busy = parent.probe !== undefined || !scheduler.running.includes(parent);
    if (busy || longest > options.maxModelLength) return ProbeAnswer.PROBE_ANSWER_NO_ROOM;
    const probe = forkForProbe(live.newHandle(), parent, shared * pool.blockSize, suffix, tokens);
    if (!scheduler.startProbe(probe, parent.blocks.slice(0, shared), longest)) return ProbeAnswer.PROBE_ANSWER_NO_ROOM;
    parent.probe = probe;
    probe.queries = model.answerQueries(parent.tokenIds.length, shared * pool.blockSize);
    live.add(probe);
    this.started += 1;
    reporter.started(probe);
    return ProbeAnswer.PROBE_ANSWER_STARTED;
  }

  /** Ends a probe and frees its blocks. */
  end(probe: Sequence, reason: EndReason): void {
    this.forget(probe, reason);
    this.#parts.scheduler.remove(probe);
  }

  /** Ends a probe whose blocks are freed by the caller. */
  forget(probe: Sequence, reason: EndReason): void {
    if (probe.fork !== undefined) {
      const { parent, sharedTokens } = probe.fork;
      parent.probe = undefined;
      // a parent that was preempted has begun another cache
      const asked = probe.queries !== undefined && probe.queries.count > 0;
      if (asked && parent.computed >= sharedTokens) parent.queries = probe.queries;
    }
    this.#parts.live.delete(probe);
    this.tokens += probe.computedInAll;
    this.#parts.reporter.finished(probe, reason);
  }
}

/**
 * An answer probe: a fork of a running request that is told to stop thinking. Nobody sees its answer. What its first
 * tokens attend to is what the answer would need now.
 *
 * @param sharedTokens leading tokens whose blocks it takes over from its parent, holes included
 * @param suffix the token sequence that ends thinking
 * @param tokens limit of generated tokens
 */
function forkForProbe(
  handle: number,
  parent: Sequence,
  sharedTokens: number,
  suffix: readonly number[],
  tokens: number,
): Sequence {
  const request = {
    id: `probe-${handle}`,
    choiceIndex: 0,
    promptTokenIds: [...parent.tokenIds, ...suffix],
    sampling: {
      maxTokens: tokens,
      temperature: 0,
      topP: 1,
      topK: 0,
      seed: 0,
      ignoreEos: false,
      stopTokenIds: [],
      logprobs: undefined,
    },
    cache: { crystalkvId: '', profile: '', budgetTokens: undefined, mode: undefined },
  };
  return new Sequence(handle, request, { parent, sharedTokens, ownFrom: parent.tokenIds.length });
}
