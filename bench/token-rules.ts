/** A rule at token level: each layer and KV head keeps its own tokens. */
export interface TokenRule {
  policy: string;
  /** For people. */
  name: string;
  /** R-KV's weight of attention against redundancy. */
  lambda?: number;
}

/** What every rule has to be better than: prompt and newest tokens, and prompt and tokens drawn anew each time. */
export const NULL_RULES: readonly TokenRule[] = [
  { policy: 'window', name: 'newest tokens' },
  { policy: 'random', name: 'random tokens, drawn anew' },
];

/** As their authors meant them. */
export const PUBLISHED_RULES: readonly TokenRule[] = [
  { policy: 'h2o', name: 'h2o' },
  { policy: 'tova', name: 'tova' },
  { policy: 'snapkv', name: 'snapkv' },
  { policy: 'rkv', name: 'R-KV', lambda: 0.1 },
  { policy: 'rkv', name: 'R-KV', lambda: 0.5 },
  { policy: 'vase', name: 'VaSE' },
  { policy: 'keydiff', name: 'KeyDiff' },
];

/** The profile under which a rule runs. */
export const profileOf = ({ policy, lambda }: TokenRule): Readonly<Record<string, unknown>> => ({
  policy,
  merge: true,
  ...(lambda === undefined ? {} : { rkv_lambda: lambda }),
});
