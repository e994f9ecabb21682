import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gridTable } from '../../bench/eval/grid-table.ts';
import { readResults } from '../../bench/eval/results.ts';
import { markdown } from '../../bench/eval/table.ts';
import { RESULTS } from '../../bench/report.ts';
import { CONTROLLERS } from '../../policy-service/controllers/registry.ts';
import { POLICIES } from '../../policy-service/policies/registry.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string) => readFileSync(`${root}${path}`, 'utf8');
const readme = read('README.md');
const measured = read('docs/measured.md');

test('the README names every policy, with the words and sources of the code', () => {
  for (const [name, { summary, source }] of Object.entries(POLICIES)) {
    assert.ok(readme.includes(`| \`${name}\` | ${summary} | ${source} |`), name);
  }
});

test('the README names every controller, with the words of the code', () => {
  for (const [name, { summary }] of Object.entries(CONTROLLERS)) {
    assert.ok(readme.includes(`| \`${name}\` | ${summary} |`), name);
  }
});

test('every command of the documents exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const makefile = read('Makefile');
  const documents = [readme, measured, ...['CONTRIBUTING.md', 'docs/experiments.md', 'model/README.md'].map(read)].join(
    '\n',
  );
  const commands = [...documents.matchAll(/(?:^|`)((?:npm run(?: --silent)?|make) [a-z][a-z:-]*)/gm)].map(
    (match) => match[1]!,
  );
  assert.ok(commands.length >= 20);
  for (const command of commands) {
    const name = command.split(' ').at(-1)!;
    const known = command.startsWith('make') ? new RegExp(`^${name}:`, 'm').test(makefile) : name in scripts;
    assert.ok(known, command);
  }
});

test('the measured tables are those that bench/results/eval.json holds', () => {
  const { rows } = readResults(RESULTS);
  const main = rows.filter((row) => row.part === 'main');
  assert.ok(main.length > 2);
  for (const row of rows.filter(({ part }) => part !== 'grid' && part !== 'sweep')) {
    const line = markdown('', [row]).trimEnd().split('\n').at(-1)!;
    assert.ok(measured.includes(line), line);
  }
  assert.ok(measured.includes(gridTable(rows)));
});
