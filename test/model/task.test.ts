import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FORMS, MAX_LINES_OF, POSITIONS } from '../../model/form.ts';
import type { ProgramOptions } from '../../model/plan.ts';
import { type Program, TOKEN_KINDS } from '../../model/program.ts';
import { makeProgram } from '../../model/task.ts';
import { VOCABULARY } from '../../model/vocab.ts';

const seeds = fc.integer({ min: 0, max: 0x7fffffff });
const programs = fc
  .constantFrom(...FORMS)
  .chain((form) => fc.tuple(seeds, fc.integer({ min: 1, max: MAX_LINES_OF[form] }), fc.constant(form)))
  .map(([seed, lines, form]) => makeProgram(seed, lines, { form }));
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

describe('a verbose program', () => {
  it('reads like this', () => {
    const { messages, prompt, reasoning } = makeProgram(1, 4, { queries: 2, form: 'verbose' });
    assert.deepEqual(messages, [
      { role: 'system', content: 'verbose' },
      { role: 'user', content: prompt },
    ]);
    assert.equal(
      reasoning,
      [
        'L4 toad 4 0 : 4 =4 + 0 =0 -> toad =4 hmm toad is 4 plus 0 . count 4 . 4 first 0 second . fine ;',
        'L3 mole 3 6 : 3 =3 + 6 =6 -> mole =9 hmm mole is 3 plus 6 . count 3 4 5 6 7 8 9 . 3 first 6 second . fine ;',
        'L2 pig toad toad : toad =4 + toad =4 -> pig =8 hmm pig is toad plus toad . count 4 5 6 7 8 . toad first toad second . fine ;',
        'L1 pine mole 4 : mole =9 + 4 =4 -> pine =3 hmm pine is mole plus 4 . count 9 0 1 2 3 . mole first 4 second . fine ;',
      ].join(' '),
    );
  });

  it('says the same as the plain one of its seed, looks the same up, and only muses more', () => {
    fc.assert(
      fc.property(seeds, fc.integer({ min: 1, max: MAX_LINES_OF.verbose }), (seed, lines) => {
        const plain = makeProgram(seed, lines);
        const verbose = makeProgram(seed, lines, { form: 'verbose' });
        for (const key of ['prompt', 'answer', 'queries', 'registers'] as const) {
          assert.deepEqual(verbose[key], plain[key]);
        }
        const needed = ({ ids, kinds, promptLength }: Program) =>
          ids.filter((_, index) => index >= promptLength && TOKEN_KINDS[kinds[index]!] !== 'filler');
        assert.deepEqual(needed(verbose), needed(plain));
        const copies = ({ lookups }: Program) =>
          lookups.map(({ register, where, earlierPositions }) => [register, where, earlierPositions.length]);
        assert.deepEqual(copies(verbose), copies(plain));
      }),
      { numRuns: 30 },
    );
  });

  it('holds no value in what it muses, so that none is looked up there', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const { reasoning } = makeProgram(seed, 20, { form: 'verbose' });
        for (const [musing] of reasoning.matchAll(/hmm[^;]*;/g)) assert.doesNotMatch(musing, /=/);
      }),
      { numRuns: 20 },
    );
  });
});

describe('the tokens of a program', () => {
  it('are its words between the special ones', () => {
    check(({ form, ids, prompt, reasoning, answer, promptLength, thinkEnd }) => {
      const text = ids.map((id) => VOCABULARY[id]).join(' ');
      const system = form === 'verbose' ? ' <|system|> verbose' : '';
      assert.equal(
        text,
        `<bos>${system} <|user|> ${prompt} <|assistant|> <think> ${reasoning} </think> ${answer} <eos>`,
      );
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

  for (const form of FORMS) {
    it(`fit the ${POSITIONS} positions of the model in the ${form} form`, () => {
      const length = (seed: number) => makeProgram(seed, MAX_LINES_OF[form], { form, queries: 6 }).ids.length;
      fc.assert(
        fc.property(seeds, (seed) => length(seed) <= POSITIONS),
        { numRuns: 20 },
      );
    });
  }
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
    ['lines must be an integer between 1 and 45, got 46', 1, 46, { form: 'verbose' }],
    ['form must be plain or verbose, got "loud"', 1, 24, { form: 'loud' as 'plain' }],
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
