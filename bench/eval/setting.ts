import { FORMS, type Form } from '../../model/form.ts';
import { ABLATIONS, BASELINES, type Candidate, CRYSTAL, SWEEP, UNDER_PRESSURE } from './candidates.ts';

/** Parts of the evaluation, each with a seed of its own and its own rows in the results. */
export const PARTS = ['main', 'ablation', 'grid', 'pressure', 'sweep', 'vllm'] as const;
export type Part = (typeof PARTS)[number];

/** Programs of one kind under every candidate and share. */
export interface Setting {
  part: Part;
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

/** What there is to choose of a part: how many programs, candidates by their keys, shares. Undefined: all. */
export interface Choice {
  programs: number | undefined;
  only: readonly string[] | undefined;
  shares: readonly number[] | undefined;
}

/** What a part measures. */
export function settingsOf(part: Part, { programs, only, shares }: Choice): Setting[] {
  const narrowed = (settings: Setting[]) =>
    settings.map((setting) => ({
      ...setting,
      programs: programs ?? setting.programs,
      shares: setting.shares.filter((share) => shares === undefined || shares.includes(share)),
      oracle: setting.oracle && (only === undefined || only.includes('oracle')),
      candidates: setting.candidates.filter(({ key }) => only === undefined || only.includes(key)),
    }));
  switch (part) {
    case 'main':
      return narrowed([
        { part, ...MAIN, programs: 200, candidates: [CRYSTAL, ...BASELINES], oracle: true, limit: 'budget' },
      ]);
    case 'ablation':
      return narrowed([
        { part, ...MAIN, programs: 64, candidates: [CRYSTAL, ...ABLATIONS], oracle: false, limit: 'budget' },
      ]);
    case 'pressure':
      return narrowed([
        { part, ...MAIN, shares: [0.5, 0.33], programs: 64, candidates: UNDER_PRESSURE, oracle: false, limit: 'pool' },
      ]);
    case 'sweep':
      return narrowed([{ part, ...MAIN, programs: 32, candidates: SWEEP, oracle: false, limit: 'budget' }]);
    case 'vllm':
      // blocks of 32 are the smallest that vLLM's kernels for CPUs take
      return narrowed([
        {
          part,
          ...MAIN,
          blockSize: 32,
          programs: 32,
          candidates: [CRYSTAL, ...BASELINES],
          oracle: false,
          limit: 'budget',
        },
      ]);
    case 'grid':
      return narrowed(
        FORMS.flatMap((form) =>
          [16, 32].flatMap((blockSize) =>
            [24, 32, 40].map(
              (lines): Setting => ({
                part,
                form,
                lines,
                blockSize,
                programs: 32,
                shares: [0.15, 0.25, 0.4, 0.6],
                candidates: [CRYSTAL, ...BASELINES],
                oracle: false,
                limit: 'budget',
              }),
            ),
          ),
        ),
      );
  }
}
