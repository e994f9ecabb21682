import { FORMS, type Form } from '../../model/form.ts';
import { ABLATIONS, BASELINES, type Candidate, CRYSTAL, SWEEP } from './candidates.ts';

/** Parts of the evaluation, each with a seed of its own and its own rows in the results. */
export const PARTS = ['main', 'ablation', 'grid', 'sweep'] as const;
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
      return narrowed([{ part, ...MAIN, programs: 200, candidates: [CRYSTAL, ...BASELINES], oracle: true }]);
    case 'ablation':
      return narrowed([{ part, ...MAIN, programs: 64, candidates: [CRYSTAL, ...ABLATIONS], oracle: false }]);
    case 'sweep':
      return narrowed([{ part, ...MAIN, programs: 32, candidates: SWEEP, oracle: false }]);
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
              }),
            ),
          ),
        ),
      );
  }
}
