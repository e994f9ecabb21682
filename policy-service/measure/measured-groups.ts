/** The head groups that one engine measures, as it was told last. Shared by all its requests. */
export class MeasuredGroups {
  /** How many the model has. */
  readonly all: number;
  /** What Configure says; empty: all. */
  selected: readonly number[] = [];
  #previous: number | undefined;

  constructor(all: number) {
    this.all = all;
  }

  get count(): number {
    return this.selected.length === 0 ? this.all : this.selected.length;
  }

  select(groups: readonly number[]): void {
    this.#previous = this.count;
    this.selected = groups;
  }

  /**
   * The head groups in a measurement of `length` bytes with `columns` blocks; undefined: it does not fit. Steps in
   * flight when the selection changed still hold the previous groups.
   */
  in(length: number, columns: number): number | undefined {
    if (length === this.count * columns) return this.count;
    return this.#previous !== undefined && length === this.#previous * columns ? this.#previous : undefined;
  }
}
