import { FORMS, type Form } from '../../model/form.ts';
import {
  ABLATIONS,
  BASELINES,
  type Candidate,
  CRYSTAL,
  EVICTING,
  SWEEP,
  TOKEN_LEVEL,
  UNDER_PRESSURE,
} from './candidates.ts';

/** Parts of the evaluation, each with a seed of its own and its own rows in the results. */
export const PARTS = ['main', 'tokens', 'ablation', 'grid', 'paired', 'pressure', 'sweep', 'vllm'] as const;
export type Part = (typeof PARTS)[number];

/** Programs of one kind under every candidate and share. */
export interface Setting {
  part: Part;
  /** Added to the part's seed. */
  seedOffset: number;
  form: Form;
  lines: number;
  blockSize: number;
  programs: number;
  shares: readonly number[];
  candidates: readonly Candidate[];
  /** With the upper bound, which knows the programs. */
  oracle: boolean;
  /** `budget`: each request keeps a share of its thinking; `pool`: the pool holds a share of what runs at the same time. */
  limit: 'budget' | 'pool';
}

const MAIN = { form: 'verbose', lines: 40, blockSize: 16, shares: [0.25, 0.4] } as const;

/** What there is to choose of a part: how many programs, forms, candidates by their keys, shares. Undefined: all. */
export interface Choice {
  programs: number | undefined;
  forms: readonly Form[] | undefined;
  only: readonly string[] | undefined;
  shares: readonly number[] | undefined;
}

/** What a part measures. A choice changes no setting's programs: what is left out can be measured later. */
export function settingsOf(part: Part, { programs, forms, only, shares }: Choice): Setting[] {
  return allOf(part)
    .map((setting, i) => ({
      ...setting,
      seedOffset: i,
      programs: programs ?? setting.programs,
      shares: setting.shares.filter((share) => shares === undefined || shares.includes(share)),
      oracle: setting.oracle && (only === undefined || only.includes('oracle')),
      candidates: setting.candidates.filter(({ key }) => only === undefined || only.includes(key)),
    }))
    .filter(({ form }) => forms === undefined || forms.includes(form));
}

function allOf(part: Part): Omit<Setting, 'seedOffset'>[] {
  switch (part) {
    case 'main':
      return [{ part, ...MAIN, programs: 200, candidates: [CRYSTAL, ...BASELINES], oracle: true, limit: 'budget' }];
    case 'tokens':
      return [
        {
          part,
          ...MAIN,
          shares: [0.25],
          programs: 32,
          candidates: [CRYSTAL, ...TOKEN_LEVEL],
          oracle: false,
          limit: 'budget',
        },
      ];
    case 'ablation':
      return [{ part, ...MAIN, programs: 64, candidates: [CRYSTAL, ...ABLATIONS], oracle: false, limit: 'budget' }];
    case 'paired':
      return [{ part, ...MAIN, programs: 600, candidates: [CRYSTAL], oracle: false, limit: 'budget' }];
    case 'pressure':
      return [
        { part, ...MAIN, shares: [0.5, 0.33], programs: 64, candidates: UNDER_PRESSURE, oracle: false, limit: 'pool' },
      ];
    case 'sweep':
      return [{ part, ...MAIN, programs: 32, candidates: SWEEP, oracle: false, limit: 'budget' }];
    case 'vllm':
      // blocks of 32 are the smallest that vLLM's kernels for CPUs take
      return [
        {
          part,
          ...MAIN,
          blockSize: 32,
          programs: 32,
          candidates: [CRYSTAL, EVICTING, ...BASELINES],
          oracle: false,
          limit: 'budget',
        },
      ];
    case 'grid':
      return FORMS.flatMap((form) =>
        [16, 32].flatMap((blockSize) =>
          [24, 32, 40].map((lines) => ({
            part,
            form,
            lines,
            blockSize,
            programs: 32,
            shares: [0.15, 0.25, 0.4, 0.6],
            candidates: [CRYSTAL, EVICTING, ...BASELINES],
            oracle: false,
            limit: 'budget' as const,
          })),
        ),
      );
  }
}
