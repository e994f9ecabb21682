/**
 * docs/measured.md, and the table of the README: from bench/results and a template, so no figure is typed by hand.
 * `--check` says whether the committed texts are what these give.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../scripts/processes.ts';
import { render, replaceBlock } from './measured/render.ts';
import { readFigures, TABLES } from './measured/results.ts';

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const page = render(read('bench/measured/page.md'), readFigures, TABLES);
const summary = render(read('bench/measured/summary.md'), readFigures, TABLES);
const texts = { 'docs/measured.md': page, 'README.md': replaceBlock(read('README.md'), 'measured', summary) };

for (const [path, text] of Object.entries(texts)) {
  if (!process.argv.includes('--check')) writeFileSync(join(ROOT, path), text);
  else if (read(path) !== text) {
    process.stderr.write(`${path} is not what bench/results and bench/measured give; run make gen\n`);
    process.exitCode = 1;
  }
}
