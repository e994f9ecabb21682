import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CONTROLLERS } from '../../policy-service/controllers/registry.ts';
import { POLICIES } from '../../policy-service/policies/registry.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string) => readFileSync(`${root}${path}`, 'utf8');
const readme = read('README.md');

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

test('every command of the README exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const makefile = read('Makefile');
  const commands = [...readme.matchAll(/(?:^|`)((?:npm run(?: --silent)?|make) [a-z][a-z:-]*)/gm)].map(
    (match) => match[1]!,
  );
  assert.ok(commands.length >= 5);
  for (const command of commands) {
    const name = command.split(' ').at(-1)!;
    const known = command.startsWith('make') ? new RegExp(`^${name}:`, 'm').test(makefile) : name in scripts;
    assert.ok(known, command);
  }
});

test('every file that the README and the documents link to exists', () => {
  for (const [folder, text] of [
    ['', readme],
    ['', read('CONTRIBUTING.md')],
    ['model/', read('model/README.md')],
  ] as const) {
    for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#]+)\)/g)) {
      assert.ok(existsSync(`${root}${folder}${target}`), target);
    }
  }
});

test('the measured table is the one that bench/results/policies.json holds', () => {
  const { rows } = JSON.parse(read('bench/results/policies.json')) as {
    rows: { lines: number; title: string; share: number; budget_blocks: number | null; exact: number }[];
  };
  for (const { lines, title, share, budget_blocks, exact } of rows) {
    const name = budget_blocks === null ? title : `${title}, ${Math.round(100 * share)} %`;
    const cell = `| ${name} | ${budget_blocks ?? 'all'} | ${(100 * exact).toFixed(0)} % (`;
    const table = readme.slice(readme.indexOf(`| ${lines} lines |`));
    assert.ok(readme.includes(`| ${lines} lines |`) && table.includes(cell), `${lines} lines: ${cell}`);
  }
});
