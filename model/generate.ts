/** Command line of the program generator; see `--help`. */
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { MAX_LINES_OF } from './form.ts';
import { TOKEN_KINDS } from './program.ts';
import { createRandom } from './random.ts';
import { makeBatch, StageData } from './stage.ts';
import { makeProgram } from './task.ts';
import { VOCABULARY } from './vocab.ts';

const HELP = `Writes crystal-mini programs as JSON lines.

  node_modules/.bin/node model/generate.ts --lines 24 --count 10 --seed 1
      programs: {form, messages, prompt, reasoning, answer, ids, kinds, promptLength, thinkEnd, lookups, queries, registers}
  node_modules/.bin/node model/generate.ts --text --lines 24
      only {prompt, reasoning, answer}
  node_modules/.bin/node model/generate.ts --text --lines 24 --verbose
      the same programs in the verbose form; a request asks for it with the system message "verbose"
  node_modules/.bin/node model/generate.ts --vocabulary
      one line: {vocabulary, kinds}; ids and kinds are indices in these lists
  node_modules/.bin/node model/generate.ts --stage '{"batchTokens":4096,"programLines":[3,7]}' --seed 1
      the vocabulary line, then training batches [{ids, kinds, lineStarts}, ...] until the reader closes the pipe

  --lines N    lines of a program, 1 to ${MAX_LINES_OF.plain}, verbose to ${MAX_LINES_OF.verbose} (default 24)
  --count N    number of programs, at least 1 (default 1)
  --seed N     0 to 2147483647 (default 1); the same seed gives the same output
`;

const integer = (option: string, text: string, min: number) => {
  const value = Number(text);
  if (text.trim() === '' || !Number.isInteger(value) || value < min) {
    throw new RangeError(`--${option} must be an integer of at least ${min}, got "${text}"`);
  }
  return value;
};

function parseStage(text: string): StageData {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new RangeError(`--stage must be JSON: ${error instanceof Error ? error.message : error}`);
  }
  const parsed = StageData.safeParse(json);
  if (!parsed.success) throw new RangeError(`--stage is not valid:\n${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      lines: { type: 'string', default: '24' },
      count: { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      stage: { type: 'string' },
      text: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
      vocabulary: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  // A reader that has enough closes the pipe: the usual end of a stream.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(0);
  });
  // Waits for each line to be written: a stream must not run ahead of its reader.
  const print = (value: unknown) =>
    new Promise<void>((resolve) => process.stdout.write(`${JSON.stringify(value)}\n`, () => resolve()));
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const random = createRandom(integer('seed', values.seed, 0));
  if (values.vocabulary || values.stage !== undefined) await print({ vocabulary: VOCABULARY, kinds: TOKEN_KINDS });
  if (values.vocabulary) return;
  if (values.stage !== undefined) {
    const stage = parseStage(values.stage);
    for (;;) await print(makeBatch(random, stage));
  }
  const lines = integer('lines', values.lines, 1);
  const count = integer('count', values.count, 1);
  for (let index = 0; index < count; index++) {
    const program = makeProgram(random, lines, { form: values.verbose ? 'verbose' : 'plain' });
    const { prompt, reasoning, answer } = program;
    await print(values.text ? { prompt, reasoning, answer } : program);
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`generate: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
