import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { GREEDY, type SamplingDefaults } from './sampling.ts';

const generationConfig = z.object({
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).nullish(),
  top_p: z.number().gt(0).lte(1).nullish(),
  top_k: z.int().min(-1).nullish(),
});

/**
 * The defaults of a model, from `generation_config.json` in its folder. Greedy without that file, or when it says
 * `do_sample: false`. Throws when the file is not valid.
 */
export function loadSamplingDefaults(folder: string): SamplingDefaults {
  const path = join(folder, 'generation_config.json');
  if (!existsSync(path)) return GREEDY;
  const result = generationConfig.safeParse(JSON.parse(readFileSync(path, 'utf8')));
  if (!result.success) throw new Error(`cannot use ${path}: ${z.prettifyError(result.error)}`);
  const { do_sample, temperature, top_p, top_k } = result.data;
  if (do_sample === false) return GREEDY;
  return { temperature: temperature ?? 1, topP: top_p ?? 1, topK: Math.max(0, top_k ?? 0) };
}
