import { noneOf, REJECTS } from '../../common/protocol.ts';
import type {
  Engine,
  EngineInfo,
  EngineStats,
  FinishReason,
  GenerateEvent,
  GenerateRequest,
  Submission,
  TokenLogprob,
} from '../../engine/types.ts';

/** Tokens that a sequence generates; one that runs out of tokens without an end waits for its abort. */
export type Script = (request: GenerateRequest) => readonly number[];

interface Live {
  request: GenerateRequest;
  emit(event: GenerateEvent): void;
  tokens: readonly number[];
  sent: number;
  aborted: boolean;
}

/** An engine that says what a script tells it to: the peer of the HTTP side in its tests. */
export class ScriptedEngine implements Engine {
  readonly info: EngineInfo;
  readonly requests: GenerateRequest[] = [];
  readonly aborted: string[] = [];
  /** Prompt tokens reported as cached. */
  cachedTokens = 0;
  /** While true nothing is generated. `resume` ends it. */
  paused = false;
  /** Tokens emitted in one turn of the event loop. */
  tokensPerTurn = 1;
  figures: EngineStats = {
    step: 0,
    running: 0,
    waiting: 0,
    freeBlocks: 100,
    totalBlocks: 100,
    preemptions: 0,
    promptTokens: 0,
    generatedTokens: 0,
    prefixCacheQueries: 0,
    prefixCacheHits: 0,
    merges: 0,
    evictedBlocks: 0,
    probes: 0,
    probeTokens: 0,
    measuredRows: 0,
    finished: { stop: 0, length: 0, abort: 0 },
    policy: { connected: false, missedSteps: 0, plans: 0, rejected: noneOf(REJECTS.words), droppedReports: 0 },
  };
  readonly #script: Script;
  readonly #live = new Set<Live>();
  #held: Live[] = [];
  readonly #listeners: ((error: Error) => void)[] = [];

  constructor(script: Script, info: Partial<EngineInfo> = {}) {
    this.#script = script;
    this.info = {
      model: 'scripted',
      maxModelLength: 64,
      vocabSize: 100,
      eosTokenId: 2,
      blockSize: 16,
      blockBytes: 4096,
      totalBlocks: 100,
      ...info,
    };
  }

  /** Sequences that have not ended. */
  get running(): number {
    return this.#live.size;
  }

  submit(request: GenerateRequest, onEvent: (event: GenerateEvent) => void): Submission {
    if (request.promptTokenIds.length === 0) throw new RangeError('the prompt is empty');
    this.requests.push(request);
    const live: Live = { request, emit: onEvent, tokens: this.#script(request), sent: 0, aborted: false };
    this.#live.add(live);
    setImmediate(() => this.#turn(live));
    return {
      abort: () => {
        if (!this.#live.has(live) || live.aborted) return;
        live.aborted = true;
        this.aborted.push(request.id);
        setImmediate(() => this.#finish(live, 'abort'));
      },
    };
  }

  resume(): void {
    this.paused = false;
    for (const live of this.#held) setImmediate(() => this.#turn(live));
    this.#held = [];
  }

  /** The worker dies: what runs is aborted, then the listeners hear of it. */
  fail(error: Error): void {
    for (const live of [...this.#live]) this.#finish(live, 'abort');
    for (const listener of this.#listeners) listener(error);
  }

  stats(): EngineStats {
    return this.figures;
  }

  onFailure(listener: (error: Error) => void): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    for (const live of [...this.#live]) this.#finish(live, 'abort');
  }

  #turn(live: Live): void {
    if (this.paused) {
      this.#held.push(live);
      return;
    }
    for (let i = 0; i < this.tokensPerTurn; i++) {
      if (!this.#live.has(live) || live.aborted) return;
      const tokenId = live.tokens[live.sent];
      if (tokenId === undefined) return;
      live.sent += 1;
      const { sampling } = live.request;
      live.emit({ type: 'token', tokenId, logprob: describe(tokenId, sampling.logprobs) });
      const isEnd = tokenId === this.info.eosTokenId && !sampling.ignoreEos;
      if (isEnd || sampling.stopTokenIds.includes(tokenId)) this.#finish(live, 'stop');
      else if (live.sent === sampling.maxTokens) this.#finish(live, 'length');
    }
    setImmediate(() => this.#turn(live));
  }

  #finish(live: Live, reason: FinishReason): void {
    if (!this.#live.delete(live)) return;
    live.emit({
      type: 'finished',
      reason,
      promptTokens: live.request.promptTokenIds.length,
      cachedTokens: this.cachedTokens,
      generatedTokens: live.sent,
    });
  }
}

/** The token with log probability -0.5, and tokens 20, 21, ... with -1, -2, ... */
function describe(tokenId: number, count: number | undefined): TokenLogprob | undefined {
  if (count === undefined) return undefined;
  const others = Array.from({ length: count }, (_, i) => ({ tokenId: 20 + i, logprob: -1 - i }));
  return { tokenId, logprob: -0.5, top: others };
}
