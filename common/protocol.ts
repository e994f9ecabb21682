import {
  FinishReason,
  Mode,
  Phase,
  ProtocolVersion,
  Reject,
  Scale,
  Statistic,
} from '../proto/gen/crystalkv/v1/policy.ts';

/** The versions of proto/crystalkv/v1/policy.proto that this release speaks, the first and the last. */
export const PROTOCOL = (() => {
  const versions = Object.values(ProtocolVersion).filter((version) => version > 0);
  return { min: Math.min(...versions), max: Math.max(...versions) } as const;
})();

/** The words of an enum of the protocol: what configuration, metrics and the engine call its values. */
export interface Vocabulary<Word extends string, Value extends number> {
  /** In the order of the protocol. */
  readonly words: readonly Word[];
  readonly values: Readonly<Record<Word, Value>>;
  /** undefined: the value is unspecified, or of a later version. */
  word(value: number): Word | undefined;
}

export const REJECTS = vocabulary('REJECT_', Reject);
export const PHASES = vocabulary('PHASE_', Phase);
export const MODES = vocabulary('MODE_', Mode);
export const FINISHES = vocabulary('FINISH_REASON_', FinishReason);
export const STATISTICS = vocabulary('STATISTIC_', Statistic);
export const SCALES = vocabulary('SCALE_', Scale);

/** Why a plan, or a block of one, was refused. */
export type RejectReason = (typeof REJECTS.words)[number];
export type RequestPhase = (typeof PHASES.words)[number];
/** What a request, or its profile, may have done with its cache. */
export type EvictionMode = (typeof MODES.words)[number];
/** Why a sequence ended; `dropped`: a probe that was given up. */
export type EndReason = (typeof FINISHES.words)[number];

/** A figure of a token by which a merge chooses what stays. */
export type StatisticName = (typeof STATISTICS.words)[number];
/** What becomes of such a figure before it is weighed. */
export type ScaleName = (typeof SCALES.words)[number];

/** A count of 0 for each word. */
export function noneOf<Word extends string>(words: readonly Word[]): Record<Word, number> {
  return Object.fromEntries(words.map((word) => [word, 0])) as Record<Word, number>;
}

type WordOf<Name, Prefix extends string> = Name extends `${Prefix}${infer Rest}`
  ? Exclude<Lowercase<Rest>, 'unspecified'>
  : never;

/** A word is the name that the protocol gives to the value, without the prefix and in lower case. */
function vocabulary<Prefix extends string, Names extends Readonly<Record<string, number>>>(
  prefix: Prefix,
  names: Names,
): Vocabulary<WordOf<keyof Names, Prefix>, Names[keyof Names]> {
  const named = Object.entries(names).flatMap(([name, value]) =>
    name.startsWith(prefix) && value !== 0 ? [[name.slice(prefix.length).toLowerCase(), value] as const] : [],
  );
  type Word = WordOf<keyof Names, Prefix>;
  const byValue = new Map(named.map(([word, value]) => [value, word as Word]));
  return Object.freeze({
    words: Object.freeze([...byValue.values()]),
    values: Object.freeze(Object.fromEntries(named)) as Readonly<Record<Word, Names[keyof Names]>>,
    word: (value: number) => byValue.get(value),
  });
}
