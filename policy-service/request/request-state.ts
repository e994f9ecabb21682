import type { EvictionMode } from '../../common/protocol.ts';
import {
  type HeldTokens,
  type KeepRule,
  Phase,
  type RequestOptions,
  type Statistic,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import type { CalibrationSample } from '../calibration/sample.ts';
import type { Member } from '../controllers/controller.ts';
import { type ControllerOptions, groupKey } from '../controllers/registry.ts';
import { MeasuredGroups } from '../measure/measured-groups.ts';
import type { ModeLabel } from '../observe/labels.ts';
import { hashText } from '../policies/hash.ts';
import { canFollow, type KeepStages, keepRule } from '../policies/keep.ts';
import type { PolicyDefinition, RequestFacts } from '../policies/policy.ts';
import { BlockTable } from './block-table.ts';
import type { Governance } from './governance.ts';
import { ProbeMemory, type ProbeRun } from './probe.ts';
import { ProbeSchedule, type Progress } from './probe-schedule.ts';
import type { Profile } from './profiles.ts';
import { Ranking } from './ranking.ts';
import { ReadCounts } from './read-counts.ts';
import { Segmentation } from './segmentation.ts';
import { ShadowCosts } from './shadow.ts';

/** What is known of a request at its start, and of its engine. */
export interface RequestStart {
  handle: number;
  crystalkvId: string;
  choiceIndex: number;
  promptTokens: number;
  epoch: number;
  /** Met in a snapshot: its history is unknown. */
  cold: boolean;
  blockSize: number;
  sinkTokens: number;
  recentTokens: number;
  headGroups: number;
  /** The head groups that are measured, if that may change. */
  measured?: MeasuredGroups;
  /** Tokens of the longest end-of-thinking sequence: part of what a probe costs. */
  probeSuffixTokens: number;
  /** What its engine can value tokens by when it merges blocks; undefined: it cannot merge. */
  statistics: ReadonlySet<Statistic> | undefined;
  /** Its engine can mark what merges in shadow mode would let go. */
  marksMerges: boolean;
}

/** What a token has to get of its head group's attention to count as read, where the profile's hit test has no share. */
const TOKEN_READ_SHARE = 0.1;

/** Everything the service knows of one running request. */
export class RequestState implements Member, RequestFacts {
  readonly start: RequestStart;
  /** What the request asked for itself. */
  readonly options: RequestOptions | undefined;
  readonly identity: string;
  readonly table: BlockTable;
  readonly ranking: Ranking;
  /** The head groups that its engine measures. */
  readonly measured: MeasuredGroups;
  readonly policyName: string;
  readonly definition: PolicyDefinition;
  readonly probe = new ProbeMemory();
  readonly schedule: ProbeSchedule;
  readonly shadow = new ShadowCosts();
  /** The engine was told to begin with its marks, and has not lost them since. */
  marksBegun = false;
  readonly reads = new ReadCounts();
  /** What each head group says of its blocks, if the request is a calibration sample. */
  sample: CalibrationSample | undefined;
  epoch: number;
  phase: Phase = Phase.PHASE_UNSPECIFIED;
  /** What the engine said last of its tokens in memory; only while somebody watches them. */
  held: HeldTokens | undefined;
  /** The most blocks that it held. */
  peakResident = 0;
  /** The most blocks that it would have held with a full cache. */
  peakFull = 0;
  measuredSteps = 0;
  /** The blocks that the answer does not need were released. */
  answerReleased = false;
  /** The engine was told what becomes of the request's blocks when it ends. */
  releaseAsked = false;
  /** The engine refused a plan for the whole request: nothing is asked of it before it has this many tokens. */
  backOffUntil = 0;
  group = '';
  budgetBlocks: number | undefined;
  #governance: Governance;
  readonly #segmentation: Segmentation;
  #mergesAsked = 0;
  /** The policy's rule, and what it was made for. */
  #rule: { profile: Profile; probed: boolean; stages: KeepStages | undefined } | undefined;

  constructor(start: RequestStart, governance: Governance, options: RequestOptions | undefined) {
    this.start = start;
    this.options = options;
    this.epoch = start.epoch;
    this.measured = start.measured ?? new MeasuredGroups(start.headGroups);
    this.identity = start.crystalkvId === '' ? `handle ${start.handle}` : `${start.crystalkvId} ${start.choiceIndex}`;
    this.table = new BlockTable(start);
    this.#segmentation = new Segmentation(start.blockSize, this.table.first);
    const { definition, policy, parameters } = governance.profile;
    this.definition = definition;
    this.policyName = policy;
    this.ranking = new Ranking({ definition, parameters, table: this.table, request: this });
    this.schedule = new ProbeSchedule(start.probeSuffixTokens);
    this.#governance = governance;
    this.govern(governance);
  }

  get handle(): number {
    return this.start.handle;
  }

  get tokens(): number {
    return this.table.tokens;
  }

  get profile(): Profile {
    return this.#governance.profile;
  }

  get mode(): EvictionMode {
    return this.#governance.mode;
  }

  get canary(): boolean {
    return this.#governance.canary;
  }

  get modeLabel(): ModeLabel {
    return this.canary ? 'canary' : this.mode;
  }

  get controller(): ControllerOptions {
    return this.#governance.controller;
  }

  get segmentStarts(): readonly number[] {
    return this.#segmentation.starts;
  }

  get segments(): Int32Array | undefined {
    return this.#segmentation.ofBlocks;
  }

  get isThinking(): boolean {
    return this.phase === Phase.PHASE_THINKING;
  }

  /** It loses tokens by merges; in shadow mode, its engine marks them. */
  get merges(): boolean {
    return (this.mode === 'enforce' || this.marksTokens) && this.#stages !== undefined;
  }

  /** In shadow mode, its engine is told of what it would lose, and says what that would have cost. */
  get marksTokens(): boolean {
    return this.#shadowsMerges && this.start.marksMerges;
  }

  /** It would merge, but its engine cannot say what merges would let go: evictions of whole blocks are judged instead. */
  get mergesUnjudged(): boolean {
    return this.#shadowsMerges && !this.start.marksMerges;
  }

  get #shadowsMerges(): boolean {
    return this.mode === 'shadow' && this.profile.merge && this.start.statistics !== undefined;
  }

  /** A token is read when it gets this share of its head group's attention. */
  get tokenReadShare(): number {
    const { rule, share } = this.profile.hits;
    return rule === 'mass' ? share : TOKEN_READ_SHARE;
  }

  /** Which tokens a merge of this request is to keep now; undefined: it does not merge. A new seed each time. */
  nextKeepRule(): KeepRule | undefined {
    const stages = this.#stages;
    if (stages === undefined) return undefined;
    this.#mergesAsked += 1;
    return keepRule(stages, hashText(`${this.identity} ${this.#mergesAsked}`, this.profile.parameters.seed));
  }

  /** undefined: its profile does not merge, or its engine cannot follow the policy's rule. */
  get #stages(): KeepStages | undefined {
    const { profile } = this;
    const probed = this.probe.count > 0;
    // asked several times in every step
    if (this.#rule?.profile !== profile || this.#rule.probed !== probed) {
      this.#rule = { profile, probed, stages: this.#followableStages(profile, probed) };
    }
    return this.#rule.stages;
  }

  #followableStages({ merge, parameters }: Profile, probed: boolean): KeepStages | undefined {
    const { statistics } = this.start;
    if (!merge || statistics === undefined) return undefined;
    const { keep, keepUnmeasured } = this.definition;
    return [keep?.(parameters, probed), keepUnmeasured].find((one) => one !== undefined && canFollow(one, statistics));
  }

  get isAnswering(): boolean {
    return this.phase === Phase.PHASE_ANSWER;
  }

  get cold(): boolean {
    return this.start.cold && this.probe.count === 0 && this.measuredSteps < this.profile.coldSteps;
  }

  get generated(): number {
    return Math.max(0, this.tokens - this.start.promptTokens);
  }

  /** Output blocks that are full, holes included. */
  get completedBlocks(): number {
    return Math.floor(this.tokens / this.table.blockSize) - this.table.firstOutput;
  }

  get progress(): Progress {
    const { tokens, generated, completedBlocks, table } = this;
    return { tokens, generated, completedBlocks, goneBlocks: table.gone, blockSize: table.blockSize };
  }

  /** New rules; the policy and its history stay. */
  govern(governance: Governance): void {
    const marked = this.marksTokens;
    this.#governance = governance;
    const { controller, mode, canary, profile } = governance;
    this.group = groupKey(profile.name, controller, canary ? 'enforce' : mode);
    this.budgetBlocks =
      controller.type === 'fixed' ? Math.ceil(controller.budgetTokens / this.table.blockSize) : undefined;
    if (mode !== 'shadow' || this.marksTokens !== marked) this.forgetShadow();
    if (mode !== 'off' && profile.answerRelease) this.reads.wanted = true;
  }

  /** What shadow mode would have taken away counts as there again; the next shadow plan begins anew. */
  forgetShadow(): void {
    this.table.clearVirtual();
    this.shadow.reset();
    this.marksBegun = false;
  }

  /** The engine dropped the cache. Scores and probes stay: the same blocks will hold the same tokens again. */
  preempt(epoch: number): void {
    this.epoch = epoch;
    this.forgetShadow();
    this.table.reset();
    this.held = undefined;
    this.backOffUntil = 0;
    this.answerReleased = false;
  }

  advance(tokens: number, phase: Phase, segmentStarts: readonly number[]): void {
    this.table.advance(tokens);
    this.phase = phase;
    if (this.table.resident > this.peakResident) this.peakResident = this.table.resident;
    if (this.table.blocks > this.peakFull) this.peakFull = this.table.blocks;
    this.#segmentation.add(segmentStarts, tokens);
  }

  /** Lets the blocks that have left the protected window take part. */
  admit(): void {
    this.#segmentation.assign(this.table.last);
    this.ranking.admit();
  }

  foldProbe(run: ProbeRun): void {
    this.probe.fold(run, this.profile.probe);
    this.sample?.fold(run, this.profile.probe.decay);
  }
}
