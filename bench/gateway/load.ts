/** The load generator, a process of its own for each measurement: `load.ts '{"target": ..., "load": ...}'`, JSON out. */

import type { Target } from './client.ts';
import { type Load, runLoad } from './loads.ts';

const { target, load } = JSON.parse(process.argv[2] ?? '') as { target: Target; load: Load };
process.stdout.write(JSON.stringify(await runLoad(target, load)));
