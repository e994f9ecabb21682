/** The load generator, a process of its own for each measurement: `load.ts '{"target": ..., "load": ...}'`, JSON out. */

import type { Target } from './client.ts';
import { type Load, runLoad } from './loads.ts';
import { realTime } from './proc.ts';

const spec = JSON.parse(process.argv[2] ?? '') as { target: Target; load: Load; realTime: boolean };
if (spec.realTime) realTime(true, [process.pid]);
process.stdout.write(JSON.stringify(await runLoad(spec.target, spec.load)));
