import { type Form, POSITIONS } from '../model/form.ts';
import type { Program } from '../model/program.ts';
import { createRandom } from '../model/random.ts';
import { makeProgram } from '../model/task.ts';

/** What the seed of a bench with programs fixes. */
export const PROGRAM_SEED = { of: 'programs to send', default: 'fresh' } as const;

/** The option of the benches that work with either form. */
export const VERBOSE = {
  type: 'boolean',
  default: false,
  help: 'programs in the verbose form, which think for more than twice as many tokens',
} as const;

/** The name of a report: the plain form goes without saying. */
export const reportName = (name: string, form: Form): string => (form === 'plain' ? name : `${name}-${form}`);

/** A third more tokens for each line than the longest right answer takes. */
const TOKENS_PER_LINE: Readonly<Record<Form, number>> = { plain: 23.3, verbose: 49 };
/** The longest prompt: 5 tokens a line, 2 for each of 6 questions, and 6 of the chat template. */
const promptTokenLimit = (lines: number) => 5 * lines + 18;

/** A limit on the answer to a program of `lines` lines, within what the model's positions leave. */
export const answerTokenLimit = (lines: number, form: Form): number =>
  Math.min(Math.ceil(TOKENS_PER_LINE[form] * lines), POSITIONS - promptTokenLimit(lines));

/** Programs that the seed fixes; the form changes only how they are thought about. */
export function makePrograms(seed: number, count: number, lines: number, form: Form = 'plain'): Program[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, () => makeProgram(random, lines, { form }));
}
