import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { ProgramOptions } from '../../model/plan.ts';
import { type Program, TOKEN_KINDS } from '../../model/program.ts';
import { makeProgram } from '../../model/task.ts';
import { MAX_LINES, VOCABULARY } from '../../model/vocab.ts';

const seeds = fc.integer({ min: 0, max: 0x7fffffff });
const lineCounts = fc.integer({ min: 1, max: MAX_LINES });
const programs = fc.tuple(seeds, lineCounts).map(([seed, lines]) => makeProgram(seed, lines));
const check = (property: (program: Program) => void) => fc.assert(fc.property(programs, property), { numRuns: 60 });

/** Follows the reasoning like a reader who knows only its text: every `name =v` tells the value of a register. */
function valuesIn(reasoning: string): Map<string, string> {
  return new Map([...reasoning.matchAll(/([a-z]+) (=\d)/g)].map(([, name, value]) => [name!, value!]));
}

/** Runs the prompt as a program. */
function run(prompt: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const [, target, left, right] of prompt.matchAll(/L\d+ (\w+) (\w+) (\w+) :/g)) {
    const [a, b] = [left!, right!].map((operand) => values.get(operand) ?? Number(operand));
    values.set(target!, (a! + b!) % 10);
  }
  return values;
}

describe('a program', () => {
  it('reads like this', () => {
    const { prompt, reasoning, answer } = makeProgram(1, 3);
    assert.match(prompt, /^L3 [a-z]+ \d \d : L2 \S+ \S+ \S+ : L1 \S+ \S+ \S+ :( Q\d [a-z]+)+$/);
    assert.match(reasoning, /^(L\d \S+ \S+ \S+ : \S+ =\d \+ \S+ =\d -> \S+ =\d( (so|that|looks|right))* ; ?){3}$/);
    assert.match(answer, /^Q1 [a-z]+ =\d( Q\d [a-z]+ =\d)*$/);
  });

  it('is the same for the same seed, and another for another', () => {
    assert.deepEqual(makeProgram(7, 24), makeProgram(7, 24));
    assert.notEqual(makeProgram(7, 24).prompt, makeProgram(8, 24).prompt);
  });

  it('keeps its words: known programs do not change', () => {
    assert.equal(
      makeProgram(1, 4, { queries: 2 }).prompt,
      'L4 toad 4 0 : L3 mole 3 6 : L2 pig toad toad : L1 pine mole 4 : Q1 pig Q2 toad',
    );
  });

  it('has labels that count down, from the number of lines to 1', () => {
    check(({ prompt, registers }) => {
      const labels = [...prompt.matchAll(/L\d+/g)].map(([label]) => label);
      assert.deepEqual(
        labels,
        registers.map((_, index) => `L${registers.length - index}`),
      );
    });
  });

  it('tells no value of a register in the prompt', () => {
    check(({ prompt }) => assert.doesNotMatch(prompt, /=/));
  });

  it('has an answer that follows from the reasoning', () => {
    check(({ reasoning, answer, queries }) => {
      const values = valuesIn(reasoning);
      const told = queries.map(({ label, register }) => `${label} ${register} ${values.get(register)}`);
      assert.equal(answer, told.join(' '));
    });
  });

  it('has results that follow from the prompt', () => {
    check(({ prompt, registers }) => {
      assert.deepEqual(
        [...run(prompt)],
        registers.map(({ register, value }) => [register, value]),
      );
    });
  });

  it('asks a cold register, a hub and the last one, if it is long enough', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const { queries, lookups } = makeProgram(seed, 24);
        const classes = queries.map((query) => query.class);
        for (const wanted of ['cold', 'hub', 'last'] as const) assert.ok(classes.includes(wanted));
        const cold = queries.filter((query) => query.class === 'cold').map((query) => query.register);
        const coldLookups = lookups.filter((lookup) => cold.includes(lookup.register));
        assert.ok(coldLookups.every((lookup) => lookup.where === 'answer' && lookup.earlierPositions.length === 1));
      }),
      { numRuns: 60 },
    );
  });
});

describe('the tokens of a program', () => {
  it('are its words between the special ones', () => {
    check(({ ids, prompt, reasoning, answer, promptLength, thinkEnd }) => {
      const text = ids.map((id) => VOCABULARY[id]).join(' ');
      assert.equal(text, `<bos> <|user|> ${prompt} <|assistant|> <think> ${reasoning} </think> ${answer} <eos>`);
      assert.equal(VOCABULARY[ids[promptLength - 1]!], '<think>');
      assert.equal(VOCABULARY[ids[thinkEnd]!], '</think>');
    });
  });

  it('have one kind each; exactly the tokens of the prompt are of kind 0', () => {
    check(({ ids, kinds, promptLength }) => {
      assert.equal(kinds.length, ids.length);
      assert.ok(kinds.every((kind, index) => (kind === 0) === index < promptLength));
    });
  });

  it('are looked up where the value was written before', () => {
    check(({ ids, kinds, lookups, promptLength }) => {
      const lookupKinds = ['operand-lookup', 'answer-lookup'].map((kind) =>
        (TOKEN_KINDS as readonly string[]).indexOf(kind),
      );
      const wanted = kinds.flatMap((kind, index) => (lookupKinds.includes(kind) ? [index] : []));
      assert.deepEqual(
        lookups.map((lookup) => lookup.tokenIndex),
        wanted,
      );
      for (const { tokenIndex, register, earlierPositions } of lookups) {
        assert.equal(VOCABULARY[ids[tokenIndex - 1]!], register);
        assert.ok(earlierPositions.length > 0);
        for (const position of earlierPositions) {
          assert.ok(position >= promptLength && position < tokenIndex);
          assert.equal(ids[position], ids[tokenIndex]);
          assert.equal(VOCABULARY[ids[position - 1]!], register);
        }
      }
    });
  });

  it('fit the 2,048 positions of the model', () => {
    fc.assert(
      fc.property(seeds, (seed) => makeProgram(seed, MAX_LINES, { queries: 6 }).ids.length <= 2048),
      { numRuns: 20 },
    );
  });
});

describe('options', () => {
  it('are obeyed', () => {
    const program = makeProgram(3, 30, { hubs: 3, coldRegisters: 0, queries: 6 });
    assert.equal(program.queries.length, 6);
    assert.equal(program.registers.filter(({ role }) => role === 'hub').length, 3);
    assert.equal(program.registers.filter(({ role }) => role === 'cold').length, 0);
  });

  it('make literal digits of what no share claims', () => {
    const { prompt } = makeProgram(3, 30, { hubShare: 0, recentShare: 0, farShare: 0 });
    assert.match(prompt, /^(L\d+ [a-z]+ \d \d : )+Q1/);
  });

  const refused: readonly [string, number, number, ProgramOptions][] = [
    ['lines must be an integer between 1 and 59, got 0', 1, 0, {}],
    ['lines must be an integer between 1 and 59, got 60', 1, 60, {}],
    ['lines must be an integer between 1 and 59, got 2.5', 1, 2.5, {}],
    ['seed must be an integer between 0 and 2147483647, got -1', -1, 24, {}],
    ['queries must be an integer between 1 and 6, got 7', 1, 24, { queries: 7 }],
    ['hubs must be an integer between 1 and 8, got 0', 1, 24, { hubs: 0 }],
    ['coldRegisters must be an integer between 0 and 32, got -1', 1, 24, { coldRegisters: -1 }],
    ['window must be an integer between 1 and 59, got 0', 1, 24, { window: 0 }],
    ['farShare must be between 0 and 1, got 1.5', 1, 24, { farShare: 1.5 }],
    ['hubShare + recentShare + farShare must be between 0 and 1, got 1.5', 1, 24, { hubShare: 1 }],
  ];
  for (const [message, seed, lines, options] of refused) {
    it(`are refused: ${message}`, () => {
      assert.throws(() => makeProgram(seed, lines, options), { name: 'RangeError', message });
    });
  }
});
