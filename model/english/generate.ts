/** Command line of the story generator; see `--help`. */
import { parseArgs } from 'node:util';
import { checkInteger, createRandom } from '../random.ts';
import { MOST_SUMS, makeDrill } from './drill.ts';
import { MOST_PEOPLE } from './plan.ts';
import { makeStory } from './story.ts';
import { PIECE_KINDS } from './thinking.ts';

const HELP = `Writes bookkeeping stories as JSON lines: {messages, prompt, reasoning, answer, pieces, questions, people}.

  node_modules/.bin/node model/english/generate.ts --people 16 --count 10 --seed 1
  node_modules/.bin/node model/english/generate.ts --text
      only {prompt, reasoning, answer}
  node_modules/.bin/node model/english/generate.ts --kinds
      one line: the kinds of pieces; a piece's kind is an index in this list
  node_modules/.bin/node model/english/generate.ts --sums 80
      sums instead of a story, for training: {prompt, pieces}

  --people N   1 to ${MOST_PEOPLE} (default 16)
  --sums N     1 to ${MOST_SUMS}
  --count N    number of stories, at least 1 (default 1)
  --seed N     0 to 2147483647 (default 1); the same seed gives the same output
`;

function integer(option: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  checkInteger(`--${option}`, value, min, max);
  return value;
}

function main(): void {
  const { values } = parseArgs({
    options: {
      people: { type: 'string', default: '16' },
      count: { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      text: { type: 'boolean', default: false },
      kinds: { type: 'boolean', default: false },
      sums: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (values.kinds) {
    print(PIECE_KINDS);
    return;
  }
  const random = createRandom(integer('seed', values.seed, 0, 0x7fffffff));
  const sums = values.sums === undefined ? undefined : integer('sums', values.sums, 1, MOST_SUMS);
  const people = integer('people', values.people, 1, MOST_PEOPLE);
  const count = integer('count', values.count, 1, 1_000_000);
  for (let index = 0; index < count; index++) {
    if (sums !== undefined) {
      print(makeDrill(random, sums));
      continue;
    }
    const story = makeStory(random, people);
    const { prompt, reasoning, answer } = story;
    print(values.text ? { prompt, reasoning, answer } : story);
  }
}

try {
  main();
} catch (error) {
  process.stderr.write(`generate: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
