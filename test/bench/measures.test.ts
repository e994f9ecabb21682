import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Answer, budgetBlocks, outputBlocks } from '../../bench/ask.ts';
import { chooseSeed } from '../../bench/program.ts';
import { median, wilson } from '../../bench/statistics.ts';
import { answerTokenLimit, makePrograms } from '../../bench/workload.ts';
import { FORMS, type Form, MAX_LINES_OF, POSITIONS } from '../../model/form.ts';

describe('statistics', () => {
  test("Wilson's interval has its published values", () => {
    const close = (interval: { low: number; high: number }, low: number, high: number) => {
      assert.ok(
        Math.abs(interval.low - low) < 0.0006 && Math.abs(interval.high - high) < 0.0006,
        JSON.stringify(interval),
      );
    };
    close(wilson(0, 10), 0, 0.2775);
    close(wilson(10, 10), 0.7225, 1);
    close(wilson(5, 10), 0.2366, 0.7634);
    close(wilson(199, 200), 0.9722, 0.9991);
  });

  test("Wilson's interval needs a possible count", () => {
    assert.throws(() => wilson(0, 0), RangeError);
    assert.throws(() => wilson(3, 2), /got 3 of 2/);
  });

  test('the median is in the middle, whatever the order', () => {
    assert.equal(median([5, 1, 3]), 3);
    assert.equal(median([10, 2, 1, 4]), 3);
    assert.throws(() => median([]), RangeError);
  });
});

describe('blocks of an answer', () => {
  const answer = (promptTokens: number, generatedTokens: number) => ({ promptTokens, generatedTokens }) as Answer;

  test('beyond the prompt count from the first block without a prompt token', () => {
    assert.equal(outputBlocks(answer(16, 17), 16), 1);
    assert.equal(outputBlocks(answer(16, 18), 16), 2);
    // The prompt's last block holds 8 tokens of output too.
    assert.equal(outputBlocks(answer(24, 9), 16), 0);
    assert.equal(outputBlocks(answer(24, 10), 16), 1);
  });

  test('give a budget that is a share of their mean, rounded up', () => {
    const answers = [answer(16, 16 * 24 + 1), answer(16, 16 * 26 + 1)];
    assert.equal(budgetBlocks(answers, 0.25, 16), 7);
    assert.equal(budgetBlocks(answers, 0.4, 16), 10);
    assert.equal(budgetBlocks(answers, 1, 16), 25);
  });
});

describe('a workload', () => {
  test('is fixed by its seed', () => {
    const prompts = (seed: number) => makePrograms(seed, 3, 8).map((program) => program.prompt);
    assert.deepEqual(prompts(4), prompts(4));
    assert.notDeepEqual(prompts(4), prompts(5));
    assert.equal(new Set(prompts(4)).size, 3);
  });

  test('says the same in either form', () => {
    const said = (form: Form) => makePrograms(4, 3, 8, form).map(({ prompt, answer }) => [prompt, answer]);
    assert.deepEqual(said('verbose'), said('plain'));
    assert.deepEqual(
      said('plain'),
      makePrograms(4, 3, 8).map(({ prompt, answer }) => [prompt, answer]),
    );
  });

  for (const form of FORMS) {
    test(`has room for every right answer in the ${form} form, within the model's positions`, () => {
      for (const lines of [1, 8, 24, 40, MAX_LINES_OF[form]]) {
        for (const { ids, promptLength } of makePrograms(9, 50, lines, form)) {
          const limit = answerTokenLimit(lines, form);
          assert.ok(
            ids.length - promptLength <= limit,
            `${ids.length - promptLength} of ${limit} tokens, ${lines} lines`,
          );
          assert.ok(promptLength + limit <= POSITIONS);
        }
      }
    });
  }

  test('has a fresh seed unless one is given, or the bench has its own', () => {
    assert.equal(chooseSeed('0'), 0);
    assert.notEqual(chooseSeed(undefined), chooseSeed(undefined));
    assert.equal(chooseSeed(undefined, 7), 7);
    for (const text of ['', '1.5', '-1', '2147483648', 'x']) {
      assert.throws(() => chooseSeed(text), new RegExp(`0 to 2147483647, got "${text}"`));
    }
  });
});
