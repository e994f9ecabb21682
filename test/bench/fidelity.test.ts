import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fidelity, firstBeyond, type Spoken } from '../../bench/fidelity/figures.ts';
import { pairedMean } from '../../bench/statistics.ts';

const BLOCK = 4;
const spoken = (logprobs: number[], mostLikely: number[]): Spoken => ({ logprobs, mostLikely });

test('the budget is exceeded when the blocks beyond the prompt are full', () => {
  // 5 tokens take two blocks, whose rest of 3 is output; then come the budget's
  assert.equal(firstBeyond(5, 1, BLOCK), 7);
  assert.equal(firstBeyond(8, 2, BLOCK), 8);
});

test('only tokens after the budget was exceeded count', () => {
  const full = spoken([0, 0, 0, 0, -1, -2], [1, 2, 3, 4, 5, 6]);
  const pairs = [-0.5, 0, 0.5].map((change) => ({
    promptTokens: BLOCK,
    full,
    // far off while nothing can be evicted
    other: spoken([-9, -9, -9, -9, -1.5, -2.5 + change], [0, 0, 0, 0, 5, 7]),
  }));
  const result = fidelity(pairs, 1, BLOCK);
  assert.deepEqual(result.perSequence, [0.75, 0.5, 0.25]);
  assert.equal(result.tokens, 6);
  assert.equal(result.extraNats.mean, 0.5);
  assert.equal(result.perplexityRatio, Math.exp(0.5));
  assert.equal(result.sameMostLikely, 0.5);
});

test('what cannot be compared is refused', () => {
  const six = spoken([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]);
  const short = { promptTokens: BLOCK, full: six, other: spoken([0], [0]) };
  assert.throws(() => fidelity([short], 1, BLOCK), /6 tokens with the full cache, and 1 without/);
  const within = { promptTokens: BLOCK, full: six, other: six };
  assert.throws(() => fidelity([within], 2, BLOCK), /6 tokens stays within a budget of 8/);
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
