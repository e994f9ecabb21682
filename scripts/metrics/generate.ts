/** Writes the list of metrics; see `--help`. */
import { runGenerator } from '../generator.ts';
import { metricsDocument } from './document.ts';
import { exportedMetrics } from './exported.ts';

const FILE = 'docs/metrics.md';

await runGenerator({
  name: 'metrics',
  about: `Writes ${FILE} from what the programs export.`,
  make: async () => new Map([[FILE, metricsDocument(await exportedMetrics())]]),
});
