/** After this many steps without an expected eviction an engine measures less often. */
const CALM_STEPS = 64;
/** How many tokens ahead an eviction is expected: measurements have to be there when it comes. */
export const WARM_UP_TOKENS = 256;

export interface MeasureIntervals {
  /** Steps from one measurement to the next. */
  measureEvery: number;
  /** The same while no eviction is expected. */
  measureEveryIdle: number;
}

/**
 * How often an engine measures: less often while memory is free and no request is near its budget, since it costs time.
 */
export class MeasureRate {
  #calmSteps = CALM_STEPS;

  /** Takes note of a step: whether an eviction is expected within the next `WARM_UP_TOKENS` tokens. */
  step(expected: boolean): void {
    this.#calmSteps = expected ? 0 : this.#calmSteps + 1;
  }

  every({ measureEvery, measureEveryIdle }: MeasureIntervals): number {
    return this.#calmSteps < CALM_STEPS ? measureEvery : measureEveryIdle;
  }
}
