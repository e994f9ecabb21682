import { MAX_LINES } from './vocab.ts';

/** Forms of the reasoning. The system message `verbose` asks for the second one. */
export const FORMS = ['plain', 'verbose'] as const;
export type Form = (typeof FORMS)[number];

/** The longest sequence of the model, in tokens. */
export const POSITIONS = 2048;

/** A verbose line takes up to 5 positions of the prompt and 39 of the reasoning; all the rest takes up to 38. */
const VERBOSE_LINE = 44;
const VERBOSE_REST = 38;

/** The longest program of each form: always within the model's positions. */
export const MAX_LINES_OF: Readonly<Record<Form, number>> = Object.freeze({
  plain: MAX_LINES,
  verbose: Math.floor((POSITIONS - VERBOSE_REST) / VERBOSE_LINE),
});
