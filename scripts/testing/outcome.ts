/** A test that did not pass, or that did not run, and why. */
export interface Note {
  name: string;
  detail: string;
}

/** What a suite found. A type check, a linter or a comparison counts as one test. */
export interface Outcome {
  passed: number;
  failed: readonly Note[];
  skipped: readonly Note[];
}

/** Says one line while a suite runs. */
export type Say = (line: string) => void;

export interface Suite {
  name: string;
  summary: string;
  /** Left out by `make test-fast`. */
  slow: boolean;
  run(say: Say): Promise<Outcome>;
}

export const PASSED: Outcome = Object.freeze({ passed: 1, failed: [], skipped: [] });

export const failure = (name: string, detail: string): Outcome => ({
  passed: 0,
  failed: [{ name, detail }],
  skipped: [],
});

export function sum(outcomes: readonly Outcome[]): Outcome {
  return {
    passed: outcomes.reduce((total, outcome) => total + outcome.passed, 0),
    failed: outcomes.flatMap((outcome) => outcome.failed),
    skipped: outcomes.flatMap((outcome) => outcome.skipped),
  };
}

export const count = (outcome: Outcome): number => outcome.passed + outcome.failed.length + outcome.skipped.length;

/** The closing line of every run. */
export const closingLine = (outcome: Outcome): string =>
  `${outcome.passed} passed, ${outcome.failed.length} failed, ${outcome.skipped.length} skipped`;

/**
 * A run is good when every suite ran something and nothing failed; `strict` (CI) does not accept a skip either.
 * Returns the outcome with the suites that ran nothing added as failures, and whether it is good.
 */
export function judge(
  results: readonly { suite: string; outcome: Outcome }[],
  strict: boolean,
): { total: Outcome; good: boolean } {
  const empty = results
    .filter(({ outcome }) => count(outcome) === 0)
    .map(({ suite }) => failure(suite, 'the suite ran no test'));
  const none = results.length === 0 ? [failure('test', 'no suite was run')] : [];
  const total = sum([...results.map(({ outcome }) => outcome), ...empty, ...none]);
  return { total, good: total.failed.length === 0 && !(strict && total.skipped.length > 0) };
}
