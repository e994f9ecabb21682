import type { EvictionMode } from '../../common/protocol.ts';
import { Phase, type RequestOptions } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { CalibrationSample } from '../calibration/sample.ts';
import type { Member } from '../controllers/controller.ts';
import { type ControllerOptions, groupKey } from '../controllers/registry.ts';
import { comparableShift, demandOf } from '../decide/comparable.ts';
import { findHits, meanMass, topHalfHits } from '../measure/masses.ts';
import { MeasuredGroups } from '../measure/measured-groups.ts';
import type { ModeLabel } from '../observe/labels.ts';
import type { Measurement, Policy, PolicyDefinition, RequestFacts } from '../policies/policy.ts';
import { BlockTable } from './block-table.ts';
import { ProbeMemory, type ProbeRun } from './probe.ts';
import { ProbeSchedule, type Progress } from './probe-schedule.ts';
import type { Profile } from './profiles.ts';
import { ReadCounts } from './read-counts.ts';
import { takeLowest } from './select.ts';
import { ShadowTally } from './shadow.ts';

/** Segments beyond this many are forgotten, oldest first. */
const MAX_SEGMENTS = 4096;

/** What an engine says of a request when it begins, and what its engine is like. */
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
  /** What is measured of them, where that may change. */
  measured?: MeasuredGroups;
  /** Tokens of the longest end-of-thinking sequence: part of what a probe costs. */
  probeSuffixTokens: number;
  /** Its engine can merge blocks. */
  canMerge: boolean;
}

/** What a request is to be governed by; changes when the configuration is read again. */
export interface Governance {
  profile: Profile;
  controller: ControllerOptions;
  mode: EvictionMode;
  /** In shadow mode so that the evictions of the requests around it can be judged. */
  canary: boolean;
}

/** Room for one request's blocks, shared by all: valid until the next call. */
const scratch = { blocks: new Int32Array(256), values: new Float64Array(256), hits: new Uint8Array(256) };
let massScratch = new Float64Array(256);
const measurement: Measurement = {
  tokens: 0,
  blocks: scratch.blocks,
  count: 0,
  evictable: 0,
  hits: scratch.hits,
  mass: massScratch,
};

function reserveScratch(blocks: number): void {
  if (blocks <= massScratch.length) return;
  scratch.blocks = new Int32Array(blocks * 2);
  scratch.values = new Float64Array(blocks * 2);
  scratch.hits = new Uint8Array(blocks * 2);
  massScratch = new Float64Array(blocks * 2);
}

/** Everything the service knows of one running request. */
export class RequestState implements Member, RequestFacts {
  readonly start: RequestStart;
  /** What the request asked for itself. */
  readonly options: RequestOptions | undefined;
  readonly identity: string;
  readonly table: BlockTable;
  readonly policyName: string;
  readonly definition: PolicyDefinition;
  readonly probe = new ProbeMemory();
  readonly schedule: ProbeSchedule;
  readonly shadow = new ShadowTally();
  readonly reads = new ReadCounts();
  /** What its head groups say of its blocks, where it is looked at to choose head groups. */
  sample: CalibrationSample | undefined;
  epoch: number;
  phase: Phase = Phase.PHASE_UNSPECIFIED;
  segmentStarts: number[] = [];
  segments: Int32Array | undefined;
  peakResident = 0;
  /** Blocks that a full cache held at its largest. */
  peakFull = 0;
  measuredSteps = 0;
  /** What the answer does not need was given up. */
  answerReleased = false;
  /** The engine was told what becomes of the request's blocks when it ends. */
  releaseAsked = false;
  /** Nothing is asked of the request before it has this many tokens: the engine refused it as a whole. */
  backOffUntil = 0;
  group = '';
  budgetBlocks: number | undefined;
  #governance: Governance;
  readonly #measured: MeasuredGroups;
  readonly #policy: Policy;
  #admitted: number;
  /** Segment starts that lie beyond the middle of the last admitted block. */
  #nextStarts: number[] = [];
  #segment = 0;

  constructor(start: RequestStart, governance: Governance, options: RequestOptions | undefined) {
    this.start = start;
    this.options = options;
    this.epoch = start.epoch;
    this.#measured = start.measured ?? new MeasuredGroups(start.headGroups);
    this.identity = start.crystalkvId === '' ? `handle ${start.handle}` : `${start.crystalkvId} ${start.choiceIndex}`;
    this.table = new BlockTable(start);
    this.definition = governance.profile.definition;
    this.policyName = governance.profile.policy;
    this.#policy = this.definition.create(governance.profile.parameters);
    this.schedule = new ProbeSchedule(start.probeSuffixTokens);
    this.#admitted = this.table.first;
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

  get isThinking(): boolean {
    return this.phase === Phase.PHASE_THINKING;
  }

  /** Shadow mode cannot know what a merge would have dropped. */
  get merges(): boolean {
    return this.start.canMerge && this.profile.merge && this.mode === 'enforce';
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
    this.#governance = governance;
    const { controller, mode, canary, profile } = governance;
    this.group = groupKey(profile.name, controller, canary ? 'enforce' : mode);
    this.budgetBlocks =
      controller.type === 'fixed' ? Math.ceil(controller.budgetTokens / this.table.blockSize) : undefined;
    if (mode !== 'shadow') this.table.clearVirtual();
    if (mode !== 'off' && profile.answerRelease) this.reads.wanted = true;
  }

  /** The cache was thrown away. Scores and probes stay: the indices will mean the same tokens again. */
  preempt(epoch: number): void {
    this.epoch = epoch;
    this.table.reset();
    this.shadow.reset();
    this.backOffUntil = 0;
    this.answerReleased = false;
  }

  advance(tokens: number, phase: Phase, segmentStarts: readonly number[]): void {
    this.table.advance(tokens);
    this.phase = phase;
    if (this.table.resident > this.peakResident) this.peakResident = this.table.resident;
    if (this.table.blocks > this.peakFull) this.peakFull = this.table.blocks;
    for (const start of segmentStarts) {
      if (start > tokens) continue;
      this.segmentStarts.push(start);
      this.#nextStarts.push(start);
    }
    if (this.segmentStarts.length > MAX_SEGMENTS) this.segmentStarts = this.segmentStarts.slice(-MAX_SEGMENTS);
  }

  /** Takes a step's masses in, or says why not; then nothing was learned from them. */
  measure(codes: Uint8Array): 'mass_length' | 'mass_code' | undefined {
    const { table } = this;
    const columns = table.resident;
    const groups = this.#measured.in(codes.length, columns);
    if (groups === undefined) return 'mass_length';
    const { hits: rule, mass: wantsMass } = this.definition;
    const shadowed = this.mode === 'shadow' && table.virtual > 0;
    reserveScratch(columns);
    const { hits } = scratch;
    const from = table.headColumns;
    const evictable = table.liveEvictable;
    const tested = rule === 'profile' || shadowed;
    if (tested || this.reads.wanted) {
      if (findHits(codes, groups, columns, from, from + evictable, this.profile.hits, hits)) {
        this.reads.add(table.live, evictable, hits, table.tokens);
      } else if (tested) return 'mass_code';
    }
    this.measuredSteps += 1;
    if (shadowed) {
      meanMass(codes, groups, columns, 0, columns, massScratch);
      this.shadow.observe(table, hits, evictable, massScratch, from);
    }
    if (groups === this.start.headGroups) this.sample?.observe(codes, columns, from, table);
    if (this.#policy.observe === undefined) return undefined;
    if (wantsMass || rule === 'top_half') meanMass(codes, groups, columns, from, columns, massScratch);
    if (rule === 'top_half') topHalfHits(massScratch, evictable, hits);
    measurement.tokens = table.tokens;
    measurement.blocks = table.live;
    measurement.count = table.liveCount;
    measurement.evictable = evictable;
    measurement.hits = hits;
    measurement.mass = massScratch;
    this.#policy.observe(measurement);
    return undefined;
  }

  /** Lets the blocks that have left the protected window take part. */
  admit(): void {
    const { last } = this.table;
    for (; this.#admitted < last; this.#admitted += 1) {
      this.#assignSegment(this.#admitted);
      this.#policy.admit?.(this.#admitted, this.tokens);
    }
  }

  #assignSegment(block: number): void {
    const middle = (block + 0.5) * this.table.blockSize;
    while (this.#nextStarts.length > 0 && this.#nextStarts[0]! <= middle) {
      this.#nextStarts.shift();
      this.#segment += 1;
    }
    if (this.#segment === 0) return;
    this.segments ??= new Int32Array(64);
    if (block >= this.segments.length) {
      const grown = new Int32Array((block + 1) * 2);
      grown.set(this.segments);
      this.segments = grown;
    }
    this.segments[block] = this.#segment;
  }

  /** The blocks that may leave, ascending. */
  candidates(): number[] {
    reserveScratch(this.table.liveCount);
    return Array.from(scratch.blocks.subarray(0, this.table.candidates(scratch.blocks)));
  }

  /** The `n` least valuable blocks that may leave, or as many as there are, ascending. Changes nothing. */
  leastValuable(n: number): number[] {
    const { table } = this;
    reserveScratch(table.liveCount);
    const count = table.candidates(scratch.blocks);
    const wanted = Math.min(n, count);
    if (wanted <= 0) return [];
    this.#policy.score(scratch.blocks, count, this, scratch.values);
    takeLowest(scratch.blocks, scratch.values, count, wanted);
    return Array.from(scratch.blocks.subarray(0, wanted));
  }

  comparableValues(out: Float64Array, at: number): number {
    const { table } = this;
    reserveScratch(table.liveCount);
    const count = table.candidates(scratch.blocks);
    this.#policy.score(scratch.blocks, count, this, scratch.values);
    const shift = comparableShift(this.policyName, {
      tokens: this.tokens,
      blockSize: table.blockSize,
      halfLifeTokens: this.profile.parameters.halfLifeTokens,
    });
    for (let i = 0; i < count; i += 1) out[at + i] = scratch.values[i]! + shift;
    return count;
  }

  demand(cover: number): number {
    return demandOf(this.policyName, this.keepValues(this.table.first, this.table.last), cover);
  }

  foldProbe(run: ProbeRun): void {
    this.probe.fold(run, this.profile.probe);
    this.sample?.fold(run, this.profile.probe.decay);
  }

  /** The keep value of the logical blocks `[from, to)`, holes included. Not for every step. */
  keepValues(from: number, to: number): Float64Array {
    const count = Math.max(0, Math.min(to, this.#admitted) - from);
    const blocks = Int32Array.from({ length: count }, (_, i) => from + i);
    const values = new Float64Array(count);
    this.#policy.score(blocks, count, this, values);
    return values;
  }
}
