/** Writes the dashboards; see `--help`. */
import { runGenerator } from '../../scripts/generator.ts';
import { dashboardFiles } from './all.ts';

const FOLDER = 'deploy/grafana/dashboards';

await runGenerator({
  name: 'grafana',
  about: `Writes the dashboards, as Grafana reads them, to ${FOLDER}.`,
  make: async () => new Map([...dashboardFiles()].map(([name, text]) => [`${FOLDER}/${name}`, text])),
});
