import type { Form } from './form.ts';
import type { RegisterRole } from './plan.ts';

/** What a token is for. A token's kind is sent as its index in this list. */
export const TOKEN_KINDS = [
  'prompt',
  'copied-definition', // name, operands of the line, repeated from the prompt
  'operand-name',
  'operand-lookup', // value of an operand that is a register: must be looked up in the reasoning
  'operand-literal', // value of an operand that is a digit
  'structure',
  'result-name',
  'result-value',
  'filler',
  'answer-name',
  'answer-lookup', // value of a register asked: must be looked up in the reasoning
  'line-label',
  'think-end',
  'first-label', // label of the first reasoning line: must be copied from the start of the prompt
  'lost-value', // only in training: a value that stands only in blocks that are hidden, so that any value is right
] as const;
export type TokenKind = (typeof TOKEN_KINDS)[number];

/** A value token that the model can only produce by finding an earlier copy of it. */
export interface Lookup {
  /** Index in `ids` of the value token. */
  readonly tokenIndex: number;
  readonly register: string;
  /** Indices in `ids` that hold the register's value before, oldest first; all in the reasoning. */
  readonly earlierPositions: readonly number[];
  readonly where: 'reasoning' | 'answer';
}

/** A register asked. `last` is the register of the last line; a hub or cold register is called that first. */
export interface Query {
  readonly label: string;
  readonly register: string;
  readonly value: number;
  readonly class: 'cold' | 'hub' | 'last' | 'other';
}

/** A line of the program with its result. */
export interface Register {
  readonly label: string;
  readonly register: string;
  readonly value: number;
  readonly role: RegisterRole;
}

/** A message of a chat request. */
export interface Message {
  readonly role: 'system' | 'user';
  readonly content: string;
}

/** A program in words and in tokens. */
export interface Program {
  readonly form: Form;
  /** What to send: the prompt as the user, after the system message `verbose` if that form is wanted. */
  readonly messages: readonly Message[];
  /** User message. */
  readonly prompt: string;
  /** Text between `<think>` and `</think>`. */
  readonly reasoning: string;
  /** Text after `</think>`. */
  readonly answer: string;
  /**
   * The whole sequence: `<bos> <|user|> prompt <|assistant|> <think> reasoning </think> answer <eos>`; in the verbose
   * form `<bos> <|system|> verbose <|user|> ...`.
   */
  readonly ids: readonly number[];
  /** Kind of every token of `ids`, as an index in `TOKEN_KINDS`. */
  readonly kinds: readonly number[];
  /** Tokens up to and with `<think>`; the reasoning starts at this index. */
  readonly promptLength: number;
  /** Index of `</think>`. */
  readonly thinkEnd: number;
  readonly lookups: readonly Lookup[];
  readonly queries: readonly Query[];
  readonly registers: readonly Register[];
}
