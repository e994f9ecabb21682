interface Plan {
  /** How often the soak asks for it. */
  weight: number;
  /** The ends that a client may see; a full queue or a limit of its key may come instead. */
  expected: readonly string[];
  /** Tokens that a whole answer reports. */
  tokens: number;
}

/** Events of a stream that is not broken off. */
export const EVENTS = 12;
/** What an answer and a stream report. */
export const USAGE = { prompt_tokens: 84, completion_tokens: 128, total_tokens: 212 };
/** What a transcription reports. */
export const UPLOAD_USAGE = { type: 'tokens', input_tokens: 750, output_tokens: 40, total_tokens: 790 };

/** Of an answer that tells no usage: it counts by its bytes. */
export const LARGE_BYTES = 2 ** 20;

/** What the scripted upstream does with a request, which names it in `user`. */
export const BEHAVIOURS = {
  answer: { weight: 26, expected: ['200 complete'], tokens: USAGE.total_tokens },
  stream: { weight: 20, expected: ['200 complete'], tokens: USAGE.total_tokens },
  /** The client asks for the usage itself. */
  stream_usage: { weight: 8, expected: ['200 complete'], tokens: USAGE.total_tokens },
  large: { weight: 3, expected: ['200 complete'], tokens: 0 },
  refused: { weight: 4, expected: ['400 complete'], tokens: 0 },
  overloaded_once: { weight: 4, expected: ['200 complete', '503 complete'], tokens: USAGE.total_tokens },
  hang_first: { weight: 1, expected: ['504 complete'], tokens: 0 },
  hang_mid: { weight: 1, expected: ['200 told'], tokens: 0 },
  half_event: { weight: 3, expected: ['200 told'], tokens: 0 },
  garbage: { weight: 3, expected: ['502 complete'], tokens: 0 },
  reset: { weight: 3, expected: ['502 complete'], tokens: 0 },
  reset_body: { weight: 3, expected: ['200 reset'], tokens: 0 },
  html_500: { weight: 3, expected: ['500 complete'], tokens: 0 },
  no_done: { weight: 3, expected: ['200 told'], tokens: 0 },
  upload: { weight: 7, expected: ['200 complete'], tokens: UPLOAD_USAGE.total_tokens },
  /** Answered before the upload is there. */
  upload_refused: { weight: 1, expected: ['400 complete'], tokens: 0 },
  /** Broken off while it arrives. */
  upload_reset: { weight: 1, expected: ['502 complete'], tokens: 0 },
} as const satisfies Record<string, Plan>;
export type Behaviour = keyof typeof BEHAVIOURS;

export const NAMES = Object.keys(BEHAVIOURS) as Behaviour[];

/** Those after which it is known to the token what was used: nothing has to be estimated. */
export const EXACT = NAMES.filter((name) => BEHAVIOURS[name].expected.every((end) => end.endsWith(' complete')));

export const isUpload = (name: Behaviour): boolean => name.startsWith('upload');

/** How the upstream describes an upload that it got. */
export const digestOf = (bytes: number, sha256: string): string => `${bytes} bytes, ${sha256}`;
