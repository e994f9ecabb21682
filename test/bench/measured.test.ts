import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { earlierRows } from '../../bench/budgets/results.ts';
import { figures as programFigures, readResults, storyFigures } from '../../bench/eval/results.ts';
import { render, replaceBlock } from '../../bench/measured/render.ts';
import { presetOf } from '../../bench/page-preset.ts';
import { RESULTS } from '../../bench/report.ts';
import { OFFERED_PROGRAMS } from '../../scripts/first-asked.ts';
import { ROOT } from '../../scripts/processes.ts';

const figures = (report: string): Record<string, string | number> =>
  report === 'speed' ? { rate: 7236.4, share: 0.3256, other: 2, machine: 'AMD' } : {};

test('figures, conditions, ratios and tables take the places that a template gives them', () => {
  const template =
    '{{speed.rate:,}} on {{speed.machine}}, {{speed.share:%}}, {{speed.rate / speed.other:.1}}\n{{table all}}';
  assert.equal(render(template, figures, { all: () => '| a |\n' }), '7,236 on AMD, 33 %, 3618.2\n| a |');
});

test('what a template names and nobody has is an error that names it', () => {
  for (const wrong of ['speed.lost', 'lost.rate', 'speed.rate:.9', 'speed.machine:.1', 'table lost', 'rate']) {
    assert.throws(() => render(`{{${wrong}}}`, figures, {}), {
      name: 'RangeError',
      message: `{{${wrong}}}: there is no such figure, table or format`,
    });
  }
});

test('a block is replaced, and what is around it stays', () => {
  const text = 'before\n<!-- sum: made by x -->\nold $1\n<!-- end of sum -->\nafter';
  const filled = 'before\n<!-- sum: made by x -->\nnew $1\n<!-- end of sum -->\nafter';
  assert.equal(replaceBlock(text, 'sum', 'new $1\n'), filled);
  assert.throws(() => replaceBlock('before', 'sum', ''), /no block "sum"/);
});

test('the published figures of the evaluation are those of its rows', () => {
  const { figures, rows, stories } = readResults(RESULTS);
  assert.ok(rows.length > 100 && stories.length > 0);
  assert.deepEqual(figures, { ...programFigures(rows), ...storyFigures(stories) });
});

const SEED = 733190412;
const measured = earlierRows(RESULTS, 'crystal-mini', SEED);
/** Right answers of a budget, and of the full cache, where both were measured: one more may be wrong. */
const keeps = (length: number, form: string, budget: number) => {
  const of = measured.filter((row) => row.length === length && row.form === form);
  const [full, kept] = [null, budget].map((wanted) => of.find((row) => row.budget === wanted));
  assert.ok(full !== undefined && kept !== undefined && full.count === kept.count, `${length} ${form} ${budget}`);
  assert.ok(kept.right >= full.right - 1, `${length} ${form}: ${kept.right} of ${kept.count} with ${budget} tokens`);
};

test('the budgets that the live page and make run offer keep the answers wherever they were measured', () => {
  const [first] = OFFERED_PROGRAMS;
  const isMeasured = (lines: number, form: string, budget: number) =>
    measured.some((row) => row.length === lines && row.form === form && row.budget === budget);
  assert.ok(isMeasured(first.lines, first.form, first.budgetTokens), 'what make run prints');
  for (const { lines, form, budgetTokens } of OFFERED_PROGRAMS)
    if (isMeasured(lines, form, budgetTokens)) keeps(lines, form, budgetTokens);
});

test('the budgets that the README recommends and warns of were measured', () => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const sentence =
    /(\d+) keeps the answers of\s+crystal-mini's plain programs of (\d+) lines right, (\d+) not even those of (\d+) lines/;
  const [, enough, lines, short, few] = sentence.exec(readme)?.map(Number) ?? [];
  keeps(lines!, 'plain', enough!);
  assert.throws(() => keeps(few!, 'plain', short!), /of 40 with/);
});

test('the recorded runs of the live page are of what it preselects, and it keeps the answer', () => {
  const { conditions, figures, rows } = JSON.parse(readFileSync(join(RESULTS, 'page.json'), 'utf8'));
  const { first, profile, examples } = presetOf('crystal-mini');
  const { title, budgetTokens } = examples[first]!;
  assert.deepEqual(
    [conditions.example, conditions.profile, conditions.budget_tokens],
    [title, profile, budgetTokens],
    'record them again: npm run bench:page -- --record',
  );
  const right = (rows as { right: boolean }[]).filter((row) => row.right).length;
  assert.deepEqual([figures.runs, figures.right], [rows.length, right]);
  assert.ok(right >= 0.98 * rows.length, `${right} of ${rows.length}`);
});
