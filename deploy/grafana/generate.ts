import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { dashboardFiles } from './all.ts';

/** Writes the dashboards as Grafana reads them; with `--check` only says which differ, and exits with 1 then. */
const FOLDER = fileURLToPath(new URL('./dashboards/', import.meta.url));

const check = process.argv.includes('--check');
mkdirSync(FOLDER, { recursive: true });
for (const [name, text] of dashboardFiles()) {
  const file = `${FOLDER}${name}`;
  if (!check) writeFileSync(file, text);
  else if (readFileSync(file, { encoding: 'utf8', flag: 'a+' }) !== text) {
    console.error(`${file} is not what deploy/grafana gives; run make gen`);
    process.exitCode = 1;
  }
}
