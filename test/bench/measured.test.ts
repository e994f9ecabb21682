import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figures as programFigures, readResults, storyFigures } from '../../bench/eval/results.ts';
import { render, replaceBlock } from '../../bench/measured/render.ts';
import { RESULTS } from '../../bench/report.ts';

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
