import assert from 'node:assert/strict';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../scripts/processes.ts';
import { runCommand } from '../../scripts/testing/command.ts';

const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-bench-'));
const script = join(folder, 'bench.ts');
const NAME = 'a-test-of-the-frame';
const unpublished = join(ROOT, 'tmp/bench', `${NAME}.json`);
writeFileSync(
  script,
  `import { runBench } from '${join(ROOT, 'bench/program.ts')}';
   await runBench({
     name: '${NAME}',
     about: 'Counts.',
     options: { quick: { type: 'boolean', default: false, help: 'less' } },
     seed: { of: 'what is counted', default: 'fresh' },
     records: true,
     trial: ({ quick }) => (quick ? { because: 'it is quick', seed: 9 } : undefined),
     run: (_, { seed, report }) => report({ conditions: { seed }, figures: { count: 1 }, rows: [] }),
   });`,
);
after(() => {
  rmSync(folder, { recursive: true });
  rmSync(unpublished, { force: true });
});
const run = (...args: string[]) => runCommand(process.execPath, [script, ...args]);

describe('a bench', () => {
  test('explains its options and does nothing else', async () => {
    const { code, output } = await run('--help');
    assert.equal(code, 0);
    for (const option of ['--quick', '--seed N', '--record', '--help'])
      assert.ok(output.includes(`  ${option} `), option);
    assert.ok(!existsSync(unpublished));
  });

  test('refuses what it does not know, and a seed out of bounds, before it measures', async () => {
    for (const args of [['--quik'], ['policy'], ['--seed', '-1'], ['--record', '--quick']]) {
      const { code, output } = await run(...args);
      assert.equal(code, 2, output);
      assert.match(output, new RegExp(`^${NAME}: `));
    }
    assert.match((await run('--record', '--quick')).output, /--record is for a whole run: it is quick/);
    assert.ok(!existsSync(unpublished));
  });

  test('leaves the committed results alone unless it is told to record', async () => {
    const { code, output } = await run('--seed', '7');
    assert.equal(code, 0, output);
    assert.ok(output.includes(`wrote ${unpublished}`), output);
    assert.equal(JSON.parse(readFileSync(unpublished, 'utf8')).conditions.seed, 7);
    assert.ok(!existsSync(join(ROOT, 'bench/results', `${NAME}.json`)));
  });

  test('has a seed of its own for tries', async () => {
    await run('--quick');
    assert.equal(JSON.parse(readFileSync(unpublished, 'utf8')).conditions.seed, 9);
  });
});

test('every bench explains itself', async () => {
  const programs = globSync('bench/*.ts', { cwd: ROOT }).filter((file) =>
    /^await run(?:Bench|CommandLine)\(/m.test(readFileSync(join(ROOT, file), 'utf8')),
  );
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const commands = Object.values(scripts).flatMap((command) => /^node (bench\/\S+)$/.exec(command)?.[1] ?? []);
  assert.deepEqual(programs.sort(), commands.sort());
  for (const file of programs) {
    const { code, output } = await runCommand(process.execPath, [file, '--help']);
    assert.equal(code, 0, output);
    assert.match(output, /--help +show this help\n$|--help +show this help\n\n/);
  }
});
