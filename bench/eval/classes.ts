import type { Query } from '../../model/program.ts';
import type { Answer } from '../ask.ts';

export const CLASSES = ['cold', 'hub', 'last'] as const satisfies readonly Query['class'][];

/** Of the registers of a class that were asked, the share whose value the answers give; undefined: none was asked. */
export function rightShare(answers: readonly Answer[], wanted: Query['class']): number | undefined {
  let asked = 0;
  let right = 0;
  for (const { program, content } of answers) {
    for (const { label, register, value, class: of } of program.queries) {
      if (of !== wanted) continue;
      asked += 1;
      if (` ${content} `.includes(` ${label} ${register} =${value} `)) right += 1;
    }
  }
  return asked === 0 ? undefined : right / asked;
}
