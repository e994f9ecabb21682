import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { ChatTokenizer } from '../../engine/http/tokenizer.ts';
import { THINK_END } from '../../model/english/story.ts';
import { createRandom, type Random } from '../../model/random.ts';
import { UsageError } from '../../scripts/command-line.ts';

/** A line of a file of texts. Other fields are ignored. */
const Line = z.object({ question: z.string().min(1), thinking: z.string().min(1), answer: z.string().min(1) });
export type Line = z.output<typeof Line>;

/** What a model is made to read, token by token: thinking with its end, answer, and questions for planted facts. */
export interface Text {
  prompt: readonly number[];
  tokens: readonly number[];
  /** Tokens of the thinking, and then of the answer; questions for facts follow. */
  thinking: number;
  answer: number;
  /** Tokens that tell a fact which was said once in the thinking. */
  facts: readonly { from: number; to: number }[];
}

/** Texts outside are left out: the shorter ones have little to evict. */
export const THINKING_TOKENS = { least: 600, most: 1100 };
const MOST_PROMPT_TOKENS = 300;
const LEAST_ANSWER_TOKENS = 8;
/** Longer answers are cut. */
const MOST_ANSWER_TOKENS = 220;
/** Facts are planted at ends of sentences between these shares of the thinking. */
const PLANTED = { from: 0.03, to: 0.6 };
const NAMES = ['Maria', 'Kenji', 'Olga', 'Pedro', 'Fatima'];
const DIGITS = 4;

/** Reads JSON lines. @throws {UsageError} naming file, line and field. */
export function readLines(file: string, which: 'all' | 'even' | 'odd'): Line[] {
  let content: string;
  try {
    content = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`--texts ${file}: ${(error as Error).message}`);
  }
  const lines = content.split('\n').flatMap((line, i) => (line.trim() === '' ? [] : [{ line, number: i + 1 }]));
  const wanted = lines.filter(({ number }) => which === 'all' || (number % 2 === 0) === (which === 'even'));
  return wanted.flatMap(({ line, number }) => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw new UsageError(`--texts ${file}, line ${number}: this is not JSON`);
    }
    // a thought that never came to an answer is no text to compare by
    if ((value as { answer?: unknown } | null)?.answer === '') return [];
    const parsed = Line.safeParse(value);
    if (parsed.success) return [parsed.data];
    const { path, message } = parsed.error.issues[0]!;
    throw new UsageError(`--texts ${file}, line ${number}, ${path.join('.') || 'all of it'}: ${message}`);
  });
}

/** Up to `count` texts whose lengths fit, in an order that the seed draws. */
export function chooseTexts(lines: readonly Line[], tokenizer: ChatTokenizer, count: number, seed: number): Text[] {
  const random = createRandom(seed);
  const chosen: Text[] = [];
  for (const { question, thinking, answer } of random.shuffle(lines)) {
    if (chosen.length === count) break;
    const prompt = tokenizer.encodeChat([{ role: 'user', content: question }], { add_generation_prompt: true });
    const thought = tokenizer.encode(thinking.trim(), false);
    const said = tokenizer.encode(answer.trim(), false).slice(0, MOST_ANSWER_TOKENS);
    const fits = thought.length >= THINKING_TOKENS.least && thought.length <= THINKING_TOKENS.most;
    if (!fits || prompt.length > MOST_PROMPT_TOKENS || said.length < LEAST_ANSWER_TOKENS) continue;
    chosen.push(withFacts(prompt, thought, said, tokenizer, random));
  }
  return chosen;
}

/** Plants facts in a thinking, and asks for them after the answer. */
export function withFacts(
  prompt: readonly number[],
  thinking: readonly number[],
  answer: readonly number[],
  tokenizer: ChatTokenizer,
  random: Random,
): Text {
  const encode = (text: string) => tokenizer.encode(text, false);
  const ends = thinking.flatMap((token, i) => {
    const inside = i >= PLANTED.from * thinking.length && i < PLANTED.to * thinking.length;
    return inside && /[.\n] *$/.test(tokenizer.decode([token], false)) ? [i + 1] : [];
  });
  const places = random
    .shuffle(ends)
    .slice(0, NAMES.length)
    .sort((a, b) => a - b);
  const facts = places.map((at, i) => ({
    at,
    said: `The code of ${NAMES[i]} is`,
    code: Array.from({ length: DIGITS }, () => random.integer(0, 9)).join(''),
  }));
  const thought: number[] = [];
  let done = 0;
  for (const { at, said, code } of facts) {
    thought.push(...thinking.slice(done, at), ...encode(` ${said} ${code}.`));
    done = at;
  }
  thought.push(...thinking.slice(done), ...encode(THINK_END));
  const tokens = [...thought, ...answer];
  const asked = random.shuffle(facts).map(({ said, code }) => {
    tokens.push(...encode(`\n${said} ${code}`));
    return { from: tokens.length - DIGITS, to: tokens.length };
  });
  return { prompt, tokens, thinking: thought.length, answer: answer.length, facts: asked };
}
