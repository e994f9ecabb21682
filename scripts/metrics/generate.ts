import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../processes.ts';
import { metricsDocument } from './document.ts';
import { exportedMetrics } from './exported.ts';

/** Writes docs/metrics.md; with `--check` only says whether it is what the code gives, and exits with 1 if not. */
const FILE = join(ROOT, 'docs/metrics.md');

const text = metricsDocument(await exportedMetrics());
if (!process.argv.includes('--check')) writeFileSync(FILE, text);
else if (readFileSync(FILE, { encoding: 'utf8', flag: 'a+' }) !== text) {
  console.error(`${FILE} is not what the code gives; run make gen`);
  process.exitCode = 1;
}
