import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../../scripts/processes.ts';
import { readResults } from './results.ts';
import type { Details } from './row.ts';

const FILE = join(ROOT, 'docs/accuracy.svg');
const WIDTH = 760;
const HEIGHT = 420;
const PLOT = { left: 56, right: 200, top: 40, bottom: 48 };
/** Shares on the x axis. */
const FROM = 0.1;
const TO = 0.65;
/** Colours that can be told apart on light and dark ground, also by the colour-blind (P. Tol's schemes, and greys). */
const COLOURS = [
  '#4477aa',
  '#ee6677',
  '#228833',
  '#ccbb44',
  '#66ccee',
  '#aa3377',
  '#888888',
  '#bb5566',
  '#997700',
  '#44aa99',
  '#332288',
  '#222222',
];

/** Draws exact answers against memory, a line a policy, from the grid's verbose programs of 40 lines. Returns the path. */
export function writePlot(folder: string): string {
  const { rows } = readResults(folder);
  const own = (row: Details) => row.form === 'verbose' && row.lines === 40 && row.block_size === 16;
  const grid = rows.filter((row) => row.part === 'grid' && own(row) && row.budget_blocks !== null);
  const shown = grid.length > 0 ? grid : rows.filter((row) => row.part === 'main' && row.budget_blocks !== null);
  writeFileSync(FILE, draw(shown));
  return FILE;
}

/** Rows of one setting. */
export function draw(rows: readonly Details[]): string {
  const x = (share: number) => PLOT.left + ((share - FROM) / (TO - FROM)) * (WIDTH - PLOT.left - PLOT.right);
  const y = (exact: number) => HEIGHT - PLOT.bottom - exact * (HEIGHT - PLOT.top - PLOT.bottom);
  const lines = [...new Set(rows.map(({ title }) => title))]
    .map((title) => {
      const points = rows.filter((row) => row.title === title);
      return { title, points: points.toSorted((a, b) => a.share - b.share) };
    })
    .sort((a, b) => mean(b.points) - mean(a.points));
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="13" role="img">`,
    '<title>Exactly solved programs against the share of the thinking cache that is kept</title>',
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(
      PLOT.left,
      22,
      'exactly solved programs, by share of the thinking cache that is kept',
      'start',
      'font-weight="bold"',
    ),
  ];
  for (const level of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(rule(PLOT.left, y(level), WIDTH - PLOT.right, y(level)));
    parts.push(text(PLOT.left - 8, y(level) + 4, `${level * 100} %`, 'end'));
  }
  for (const share of [0.15, 0.25, 0.4, 0.6]) {
    parts.push(text(x(share), HEIGHT - PLOT.bottom + 22, `${share * 100} %`, 'middle'));
  }
  lines.forEach(({ title, points }, i) => {
    const colour = COLOURS[i % COLOURS.length];
    const width = points.some(({ key }) => key === 'crystal') ? 4 : 2;
    const path = points.map(
      ({ share, exact }, at) => `${at === 0 ? 'M' : 'L'}${x(share).toFixed(1)} ${y(exact).toFixed(1)}`,
    );
    parts.push(`<path d="${path.join(' ')}" fill="none" stroke="${colour}" stroke-width="${width}"/>`);
    for (const { share, exact } of points) {
      parts.push(`<circle cx="${x(share).toFixed(1)}" cy="${y(exact).toFixed(1)}" r="${width}" fill="${colour}"/>`);
    }
    const at = PLOT.top + 10 + i * 20;
    parts.push(`<rect x="${WIDTH - PLOT.right + 18}" y="${at - 6}" width="16" height="4" fill="${colour}"/>`);
    parts.push(text(WIDTH - PLOT.right + 42, at, title, 'start'));
  });
  return `${[...parts, '</svg>'].join('\n')}\n`;
}

const mean = (points: readonly Details[]) => points.reduce((sum, { exact }) => sum + exact, 0) / points.length;

const rule = (x1: number, y1: number, x2: number, y2: number) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="#cccccc"/>`;

const text = (x: number, y: number, words: string, anchor: string, more = '') =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" fill="#333333" ${more}>${words}</text>`;
