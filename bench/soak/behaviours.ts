/**
 * What the scripted upstream does with a request, and how often the soak asks for it. The request names it in `user`.
 * `expected` are the ends that a client may see then; a full queue or an overloaded gateway (429, 503) may come instead.
 */
export const BEHAVIOURS = {
  answer: { weight: 30, expected: ['200 complete'] },
  stream: { weight: 30, expected: ['200 complete'] },
  large: { weight: 3, expected: ['200 complete'] },
  refused: { weight: 4, expected: ['400 complete'] },
  overloaded_once: { weight: 4, expected: ['200 complete', '503 complete'] },
  hang_first: { weight: 2, expected: ['504 complete'] },
  hang_mid: { weight: 2, expected: ['200 told'] },
  half_event: { weight: 3, expected: ['200 told'] },
  garbage: { weight: 3, expected: ['502 complete'] },
  reset: { weight: 3, expected: ['502 complete'] },
  reset_body: { weight: 3, expected: ['200 reset'] },
  html_500: { weight: 3, expected: ['500 complete'] },
  no_done: { weight: 3, expected: ['200 told'] },
} as const satisfies Record<string, { weight: number; expected: readonly string[] }>;
export type Behaviour = keyof typeof BEHAVIOURS;

export const NAMES = Object.keys(BEHAVIOURS) as Behaviour[];

/** Statuses that the gateway may give to any request, by design. */
export const SHED: readonly number[] = [429, 503];

/** What any request may get that came to the address which refuses, when the budget of retries was used up. */
export const UNREACHABLE = '502 complete';
