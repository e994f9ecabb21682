import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { TOKEN_KINDS } from '../../model/program.ts';
import { createRandom } from '../../model/random.ts';
import { makeRecall, type Sequence } from '../../model/recall.ts';
import { VOCABULARY } from '../../model/vocab.ts';

const script = fileURLToPath(new URL('../../model/generate.ts', import.meta.url));
const generate = (...options: string[]) => promisify(execFile)(process.execPath, [script, ...options]);

/** The first lines of a stage's stream. */
async function readStage(stage: object, count: number): Promise<unknown[]> {
  const child = spawn(process.execPath, [script, '--stage', JSON.stringify(stage)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let complaints = '';
  child.stderr.on('data', (chunk) => {
    complaints += chunk;
  });
  const read: unknown[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    read.push(JSON.parse(line));
    if (read.length === count) break;
  }
  child.stdout.destroy();
  const [code] = await once(child, 'exit');
  assert.deepEqual([code, complaints], [0, '']);
  return read;
}

describe('generate.ts', () => {
  it('prints programs, the same for the same seed', async () => {
    const { stdout } = await generate('--lines', '5', '--count', '3', '--seed', '9');
    const again = await generate('--lines', '5', '--count', '3', '--seed', '9');
    assert.equal(stdout, again.stdout);
    const lines = stdout.trimEnd().split('\n');
    assert.equal(new Set(lines).size, 3);
    assert.match(JSON.parse(lines[0]!).prompt, /^L5 /);
  });

  it('prints only the text if asked', async () => {
    const { stdout } = await generate('--text');
    assert.deepEqual(Object.keys(JSON.parse(stdout)), ['prompt', 'reasoning', 'answer']);
  });

  it('prints the same programs in the verbose form if asked', async () => {
    const [plain, verbose] = await Promise.all(
      [[], ['--verbose']].map(async (form) => JSON.parse((await generate('--lines', '6', ...form)).stdout)),
    );
    assert.equal(verbose.form, 'verbose');
    assert.deepEqual(verbose.registers, plain.registers);
    assert.match(verbose.reasoning, /hmm .* count /);
    assert.doesNotMatch(plain.reasoning, /hmm/);
  });

  it('streams batches until the reader closes the pipe', { timeout: 20_000 }, async () => {
    const [header, ...batches] = await readStage({ batchTokens: 200, programLines: [3, 5], recallShare: 0.5 }, 5);
    assert.deepEqual(header, { vocabulary: VOCABULARY, kinds: TOKEN_KINDS });
    for (const batch of batches as Sequence[][]) {
      assert.ok(batch.reduce((tokens, { ids }) => tokens + ids.length, 0) >= 200);
      for (const { ids, kinds, lineStarts } of batch) {
        assert.equal(ids.length, kinds.length);
        assert.ok(lineStarts.length > 0 && lineStarts.every((start) => start > 0 && start < ids.length));
      }
    }
  });

  it('streams batches of both forms, each of its own length', { timeout: 20_000 }, async () => {
    const stage = { batchTokens: 100, programLines: [3, 3], verboseLines: [4, 4], verboseShare: 0.5, cutShare: 0.3 };
    const [, ...batches] = await readStage(stage, 41);
    const begins = (batches as Sequence[][]).flat().map(({ ids }) => {
      const words = ids.map((id) => VOCABULARY[id]!);
      return `${words[1]} ${words.find((word) => /^L\d+$/.test(word))}`;
    });
    assert.deepEqual([...new Set(begins)].sort(), ['<|system|> L4', '<|user|> L3']);
  });

  for (const [options, message] of [
    [['--lines', '60'], /lines must be an integer between 1 and 59, got 60/],
    [['--count', 'many'], /--count must be an integer of at least 1, got "many"/],
    [['--verbose', '--lines', '46'], /lines must be an integer between 1 and 45, got 46/],
    [['--stage', '{}'], /--stage is not valid:[\s\S]*batchTokens/],
    [['--stage', '{'], /--stage must be JSON/],
    [['--colour'], /--colour/],
  ] as const) {
    it(`refuses ${options.join(' ')}`, async () => {
      await assert.rejects(generate(...options), { code: 2, stderr: message });
    });
  }
});

describe('a recall sequence', () => {
  it('marks as lookup exactly the values that were told before', () => {
    const { ids, kinds } = makeRecall(createRandom(1), 12);
    assert.equal(ids.length, 124);
    const told = new Map<number, number>();
    for (const [index, id] of ids.entries()) {
      if (!VOCABULARY[id]!.startsWith('=')) continue;
      const name = ids[index - 1]!;
      const known = told.get(name);
      assert.equal(TOKEN_KINDS[kinds[index]!], known === undefined ? 'prompt' : 'operand-lookup');
      if (known !== undefined) assert.equal(id, known);
      told.set(name, id);
    }
    assert.ok(told.size > 1);
  });
});
