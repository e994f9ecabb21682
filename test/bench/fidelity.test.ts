import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fidelity, firstBeyond, type Thoughts, textFidelity } from '../../bench/fidelity/figures.ts';
import { chooseTexts, readLines, THINKING_TOKENS } from '../../bench/fidelity/texts.ts';
import { pairedMean } from '../../bench/statistics.ts';
import type { ChatTokenizer } from '../../engine/http/tokenizer.ts';

const BLOCK = 4;
const thoughts = (kl: number[], mostLikely: number[]): Thoughts => ({ kl, mostLikely });

test('the budget is exceeded when the blocks beyond the prompt are full', () => {
  // 5 tokens take two blocks, whose rest of 3 is output; then come the budget's
  assert.equal(firstBeyond(5, 1, BLOCK), 7);
  assert.equal(firstBeyond(8, 2, BLOCK), 8);
});

/** Six tokens of thinking, two of answer, and a question whose last two tokens are a fact. */
const TEXT = {
  prompt: [1, 2, 3, 4],
  tokens: [10, 11, 12, 13, 14, 15, 20, 21, 30, 31, 32],
  thinking: 6,
  answer: 2,
  facts: [{ from: 9, to: 11 }],
};
const FULL = thoughts(Array(11).fill(0), [0, 0, 0, 0, 5, 6, 7, 8, 0, 31, 32]);

test('thinking counts after the budget was exceeded, then the answer, then facts', () => {
  const kl = [9, 9, 9, 9, 0.25, 0.75, 1, 2, 9, 9, 9];
  const right = textFidelity(TEXT, FULL, thoughts(kl, [9, 9, 9, 9, 5, 9, 7, 9, 9, 31, 32]), 1, BLOCK);
  assert.deepEqual(right, { thinking: 0.5, answer: 1.5, same: 0.5, facts: 1, recalled: 1 });
  const wrong = textFidelity(TEXT, FULL, thoughts(kl, [9, 9, 9, 9, 5, 6, 7, 8, 9, 31, 33]), 1, BLOCK);
  assert.deepEqual([wrong.same, wrong.recalled], [1, 0]);
  // what the full cache does not recall is asked of nobody
  const forgot = thoughts(FULL.kl as number[], [...FULL.mostLikely.slice(0, 10), 33]);
  const asked = textFidelity(TEXT, forgot, FULL, 1, BLOCK);
  assert.deepEqual([asked.facts, asked.recalled], [0, 0]);
});

test('each text weighs the same, and texts without an answer have none', () => {
  const some = { same: 1, facts: 2, recalled: 1 };
  const result = fidelity([
    { ...some, thinking: 1, answer: Number.NaN },
    { ...some, thinking: 2, answer: 1 },
    { ...some, thinking: 6, answer: 2 },
  ]);
  assert.equal(result.klThinking.mean, 3);
  assert.equal(result.klAnswer, undefined);
  assert.deepEqual([result.facts, result.recalled], [6, 3]);
});

test('what cannot be compared is refused', () => {
  assert.throws(() => textFidelity(TEXT, FULL, thoughts([0], [0]), 1, BLOCK), /11 tokens, and thoughts of 1/);
  assert.throws(() => textFidelity(TEXT, FULL, FULL, 2, BLOCK), /thinking of 6 tokens stays within a budget of 8/);
});

/** A token a word; the end of a sentence is part of its word. */
const tokenizer = {
  encode: (text: string) => (text.match(/\n*[^\s]+\n*|\d/g) ?? []).flatMap((word) => wordIds(word)),
  encodeChat: ([message]: { content: string }[]) => wordIds(message!.content),
  decode: ([id]: number[]) => WORDS[id!]!,
} as unknown as ChatTokenizer;
const WORDS: string[] = [];

function wordIds(text: string): number[] {
  const words = /^\d{4}\.?$/.test(text) ? [...text] : [text];
  return words.map((word) => {
    if (!WORDS.includes(word)) WORDS.push(word);
    return WORDS.indexOf(word);
  });
}

function inFolder(run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'fidelity-'));
  try {
    run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('facts are planted once in the first part of the thinking and asked for after the answer', () => {
  const thinking = Array.from({ length: THINKING_TOKENS.least }, (_, i) => (i % 9 === 8 ? `w${i}.` : `w${i}`)).join(
    ' ',
  );
  const answer = Array.from({ length: 9 }, (_, i) => `a${i}`).join(' ');
  const [text] = chooseTexts([{ question: 'why', thinking, answer }], tokenizer, 3, 1);
  assert.ok(text);
  assert.equal(text.facts.length, 5);
  assert.equal(text.answer, 9);
  const said = text.tokens.map((id) => WORDS[id]);
  for (const { from, to } of text.facts) {
    const name = said[from - 2];
    const code = said.slice(from, to).join('');
    assert.match(code, /^\d{4}$/);
    const place = said.indexOf(name);
    assert.ok(place > 0.03 * 700 && place < 0.7 * text.thinking, `${name} at ${place}`);
    assert.equal(said.slice(place + 2, place + 6).join(''), code);
    assert.equal(said.lastIndexOf(name), from - 2);
  }
  // the same seed gives the same text
  assert.deepEqual(chooseTexts([{ question: 'why', thinking, answer }], tokenizer, 3, 1), [text]);
});

test('texts that are too short are left out; files are refused by line and field', () => {
  const short = { question: 'why', thinking: 'so', answer: 'a b c d e f g h i' };
  assert.deepEqual(chooseTexts([short], tokenizer, 3, 1), []);
  inFolder((folder) => {
    const file = join(folder, 'texts.jsonl');
    writeFileSync(file, `${JSON.stringify(short)}\n\n${JSON.stringify({ ...short, question: 'how' })}\n`);
    assert.deepEqual(
      readLines(file, 'all').map(({ question }) => question),
      ['why', 'how'],
    );
    assert.equal(readLines(file, 'even').length, 0);
    writeFileSync(file, '{"question": "why", "thinking": 3, "answer": "b"}\n');
    assert.throws(() => readLines(file, 'all'), /texts\.jsonl, line 1, thinking: /);
    writeFileSync(file, 'so\n');
    assert.throws(() => readLines(file, 'all'), /line 1: this is not JSON/);
    assert.throws(() => readLines(join(folder, 'none'), 'all'), /none: ENOENT/);
  });
});

test("a mean of differences has Student's interval", () => {
  // quantiles of Student's t for 3 and 9 degrees of freedom: 3.1824 and 2.2622
  const four = pairedMean([1, 2, 3, 4]);
  assert.equal(four.mean, 2.5);
  assert.ok(Math.abs(four.high - 2.5 - 3.1824 * Math.sqrt(5 / 3 / 4)) < 0.01, `${four.high}`);
  const ten = pairedMean([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.ok(Math.abs(5.5 - ten.low - 2.2622 * Math.sqrt(55 / 6 / 10)) < 0.001, `${ten.low}`);
  assert.throws(() => pairedMean([1, 2]), /at least 3 differences are needed, got 2/);
});
