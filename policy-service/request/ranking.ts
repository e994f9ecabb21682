import type { Worth } from '../controllers/controller.ts';
import { demandOf } from '../controllers/demand.ts';
import { grown } from '../grown.ts';
import type { Measurement, Policy, PolicyDefinition, PolicyParameters, RequestFacts } from '../policies/policy.ts';
import type { BlockTable } from './block-table.ts';
import { takeLowest } from './select.ts';

/** Shared by all requests; what is in them is valid until the next call. */
let blocks = new Int32Array(256);
let values = new Float64Array(256);

export interface RankingDeps {
  definition: PolicyDefinition;
  parameters: PolicyParameters;
  table: BlockTable;
  request: RequestFacts;
}

/** What one request's blocks are worth: its policy, with all that the policy was told of the request. */
export class Ranking implements Worth {
  readonly #deps: RankingDeps;
  readonly #policy: Policy;
  /** Blocks below this index have left the protected window. */
  #admitted: number;

  constructor(deps: RankingDeps) {
    this.#deps = deps;
    this.#policy = deps.definition.create(deps.parameters);
    this.#admitted = deps.table.first;
  }

  /** Whether the policy learns from measurements. */
  get observes(): boolean {
    return this.#policy.observe !== undefined;
  }

  observe(measurement: Measurement): void {
    this.#policy.observe?.(measurement);
  }

  /** Lets the blocks that have left the protected window take part. */
  admit(): void {
    const { table } = this.#deps;
    for (; this.#admitted < table.last; this.#admitted += 1) this.#policy.admit?.(this.#admitted, table.tokens);
  }

  /** The blocks that may leave, ascending. */
  candidates(): number[] {
    return Array.from(blocks.subarray(0, this.#candidates()));
  }

  /** The `n` least valuable blocks that may leave, or as many as there are, ascending. Changes nothing. */
  leastValuable(n: number): number[] {
    const count = this.#candidates();
    const wanted = Math.min(n, count);
    if (wanted <= 0) return [];
    this.#policy.score(blocks, count, this.#deps.request, values);
    takeLowest(blocks, values, count, wanted);
    return Array.from(blocks.subarray(0, wanted));
  }

  comparableValues(out: Float64Array, at: number): number {
    const { definition, parameters, table, request } = this.#deps;
    const count = this.#candidates();
    this.#policy.score(blocks, count, request, values);
    const shift = definition.comparison.shift?.(table, parameters) ?? 0;
    for (let i = 0; i < count; i += 1) out[at + i] = values[i]! + shift;
    return count;
  }

  demand(cover: number): number {
    const { definition, table } = this.#deps;
    return demandOf(definition.comparison.weight, this.keepValues(table.first, table.last), cover);
  }

  /** The values of the logical blocks `[from, to)`, holes included. Not for every step. */
  keepValues(from: number, to: number): Float64Array {
    const count = Math.max(0, Math.min(to, this.#admitted) - from);
    const asked = Int32Array.from({ length: count }, (_, i) => from + i);
    const worth = new Float64Array(count);
    this.#policy.score(asked, count, this.#deps.request, worth);
    return worth;
  }

  /**
   * Fills `blocks` with those that may leave, ascending, makes room for their values, and returns how many they are.
   */
  #candidates(): number {
    const { table } = this.#deps;
    blocks = grown(blocks, table.liveCount);
    values = grown(values, table.liveCount);
    return table.candidates(blocks);
  }
}
