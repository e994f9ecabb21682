/** What the vLLM plugin adds to a step of vLLM's own schedulers, and what a merge costs; see `--help`. */
import { execFileSync } from 'node:child_process';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { ROOT } from '../scripts/processes.ts';
import { runBench } from './program.ts';
import { round } from './statistics.ts';
import { vllmPython } from './vllm/process.ts';

const Measured = z.object({ vllm: z.string(), torch: z.string(), figures: z.record(z.string(), z.number()) });
const FULL = { steps: 400, rounds: 3 };
const QUICK = { steps: 60, rounds: 1 };

await runBench({
  name: 'plugin',
  about: `Measures what the plugin adds to each step of vLLM's schedulers at 256 requests, with stock vLLM in the same run, and what
merging 64 blocks of an output of 8,192 tokens costs. No model is computed, and no GPU is needed: operations of a GPU are
counted with tensors that have shapes only. The first time, vLLM is installed (6 GB).`,
  options: { quick: { type: 'boolean', default: false, help: 'fewer steps, to try' } },
  records: true,
  trial: ({ quick }) => (quick ? { because: '--quick measures less' } : undefined),
  async run({ quick }, { say, report }) {
    const { steps, rounds } = quick ? QUICK : FULL;
    const output = execFileSync(vllmPython(), [join(ROOT, 'bench/plugin/driver.py'), `${steps}`, `${rounds}`], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { vllm, torch, figures } = Measured.parse(JSON.parse(output.trimEnd().split('\n').at(-1) ?? ''));
    for (const [name, value] of Object.entries(figures)) say(`${name} ${round(value)}`);
    report({
      conditions: { vllm, torch, steps, requests: 256, load: round(loadavg()[0] ?? 0, 1) },
      figures: Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, round(value)])),
      rows: [],
    });
  },
});
