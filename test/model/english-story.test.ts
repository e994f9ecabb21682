import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { makeDrill } from '../../model/english/drill.ts';
import { judge } from '../../model/english/judge.ts';
import { MOST_PEOPLE } from '../../model/english/plan.ts';
import { makeStory, type Story, THINK_END } from '../../model/english/story.ts';
import { PIECE_KINDS } from '../../model/english/thinking.ts';
import { createRandom } from '../../model/random.ts';

const SIZES = [1, 2, 3, 4, 8, 16, 20, 24, MOST_PEOPLE];
const STORIES = SIZES.flatMap((people) => [1, 2, 3, 4, 5].map((seed) => makeStory(seed * 100 + people, people)));
const TALES = STORIES.filter(({ people }) => people.length >= 4);

/** What the prompt says, read back from its sentences: a count for every person it gives or relates to earlier ones. */
function solve(prompt: string): Map<string, number> {
  const counts = new Map<string, number>();
  const known = (name: string) => {
    const count = counts.get(name);
    assert.ok(count !== undefined, `${name} is used before a count is known: ${prompt}`);
    return count;
  };
  for (const [, name, rest] of prompt.matchAll(/(\w+) has ([^.]+)\./g)) {
    assert.ok(!counts.has(name!), `${name} is told twice`);
    const [, by, relation, other] = /^(\d+) (more|fewer) \w+ than (\w+)$/.exec(rest!) ?? [];
    const [, first, second] = /^as many \w+ as (\w+) and (\w+) together$/.exec(rest!) ?? [];
    const [, given] = /^(\d+) \w+$/.exec(rest!) ?? [];
    if (given !== undefined) counts.set(name!, Number(given));
    else if (first !== undefined) counts.set(name!, known(first) + known(second!));
    else counts.set(name!, known(other!) + (relation === 'more' ? Number(by) : -Number(by)));
  }
  return counts;
}

const ownLine = (story: Story, name: string) =>
  story.reasoning.split('\n')[story.people.findIndex((it) => it.name === name) + 1]!;

describe('a story', () => {
  it('is the same for the same seed, and another for another', () => {
    assert.deepEqual(makeStory(7, 16), makeStory(7, 16));
    assert.notEqual(makeStory(7, 16).prompt, makeStory(8, 16).prompt);
    const random = createRandom(7);
    assert.deepEqual([makeStory(random, 16).prompt, makeStory(random, 16).prompt][0], makeStory(7, 16).prompt);
  });

  it('has one solution, which its people and its answer state', () => {
    for (const story of STORIES) {
      const counts = solve(story.prompt);
      assert.deepEqual(
        [...counts],
        story.people.map(({ name, count }) => [name, count]),
      );
      assert.equal(story.answer, story.questions.map(({ name }) => `${name}: ${counts.get(name)}`).join('; '));
      const asked = /do (.+) have\?$/.exec(story.prompt)![1]!.split(/, | and /);
      assert.deepEqual(
        asked,
        story.questions.map(({ name }) => name),
      );
    }
  });

  it('thinks one line about each person, in which every sum is right', () => {
    for (const { reasoning, people } of STORIES) {
      const lines = reasoning.split('\n').slice(1, -1);
      assert.equal(lines.length, people.length);
      for (const [index, { name, count }] of people.entries()) {
        assert.ok(lines[index]!.includes(` So ${name} has ${count}.`), lines[index]);
        for (const [, a, sign, b, sum] of lines[index]!.matchAll(/(\d+) ([+-]) (\d+) = (\d+)/g)) {
          assert.equal(Number(a) + (sign === '+' ? Number(b) : -Number(b)), Number(sum));
        }
      }
    }
  });

  it('asks four people, among them a cold one and the last', () => {
    for (const { questions, people } of TALES) {
      assert.equal(new Set(questions.map(({ name }) => name)).size, 4);
      assert.ok(questions.some((question) => question.class === 'cold'));
      assert.ok(questions.some(({ name }) => name === people.at(-1)!.name));
    }
  });

  it('says a cold count in the line about that person alone, and never in the prompt', () => {
    for (const story of TALES) {
      const cold = story.people.filter(({ role }) => role === 'cold');
      assert.ok(cold.length > 0);
      for (const { name, count } of cold) {
        const elsewhere = story.reasoning.replace(ownLine(story, name), '');
        assert.doesNotMatch(elsewhere, new RegExp(`\\b${name}\\b`));
        assert.doesNotMatch(story.prompt, new RegExp(`${name} has ${count} (?!more|fewer)`));
        assert.equal(
          story.prompt.split(new RegExp(`\\b${name}\\b`)).length - 1 <= 2,
          true,
          'told once, asked at most once',
        );
      }
    }
  });

  it('is cut into pieces that make up all that the model writes', () => {
    for (const { pieces, reasoning, answer } of STORIES) {
      assert.equal(pieces.map(([, text]) => text).join(''), reasoning + THINK_END + answer);
      assert.ok(pieces.every(([kind]) => PIECE_KINDS[kind] !== undefined));
    }
  });

  it('refuses sizes that it has no names for', () => {
    for (const people of [0, MOST_PEOPLE + 1, 2.5]) {
      assert.throws(
        () => makeStory(1, people),
        new RangeError(`people must be an integer between 1 and ${MOST_PEOPLE}, got ${people}`),
      );
    }
  });
});

describe('a drill', () => {
  it('holds as many sums as asked for, and all are right', () => {
    const text = makeDrill(createRandom(3), 50)
      .pieces.map(([, piece]) => piece)
      .join('');
    const sums = [...text.matchAll(/(\d+) ([+-]) (\d+) = (\d+)\./g)];
    assert.equal(sums.length, 50);
    for (const [, a, sign, b, sum] of sums)
      assert.equal(Number(a) + (sign === '+' ? Number(b) : -Number(b)), Number(sum));
  });
});

describe('the judge', () => {
  const story = makeStory(11, 16);
  const [first, ...rest] = story.questions;
  const write = (questions: readonly { name: string; count: number }[]) =>
    questions.map(({ name, count }) => `${name}: ${count}`).join('; ');

  it('takes the right answer, with line ends around it', () => {
    assert.deepEqual(judge(story, `\n\n${story.answer}\n`), { exact: true, right: [true, true, true, true] });
  });

  it('tells which counts are wrong or missing', () => {
    const wrong = write([{ name: first!.name, count: first!.count + 1 }, ...rest]);
    assert.deepEqual(judge(story, wrong), { exact: false, right: [false, true, true, true] });
    assert.deepEqual(judge(story, write(rest)), { exact: false, right: [false, true, true, true] });
    assert.deepEqual(judge(story, ''), { exact: false, right: [false, false, false, false] });
  });

  it('takes no second guess', () => {
    const twice = write([...story.questions, { name: first!.name, count: first!.count + 1 }]);
    assert.deepEqual(judge(story, twice), { exact: false, right: [false, true, true, true] });
  });
});
