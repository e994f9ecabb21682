import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Program } from '../model/program.ts';

/** What the page preselects for a model; scripts/ui-examples.ts writes it. */
export interface Preset {
  /** Part of the model's name; empty: any other model. */
  model: string;
  first: number;
  profile: string;
  examples: (Pick<Program, 'messages' | 'answer'> & { title: string; budgetTokens: number })[];
}

/** The option of a program that asks a running system. */
export const GATEWAY_OPTION = {
  type: 'string',
  default: 'http://127.0.0.1:8080',
  value: 'URL',
  help: 'gateway (default http://127.0.0.1:8080)',
} as const;

const FILE = fileURLToPath(new URL('../gateway/ui/page/examples.json', import.meta.url));

/** The preset for a model's name. */
export function presetOf(model: string): Preset {
  const presets: Preset[] = JSON.parse(readFileSync(FILE, 'utf8'));
  return presets.find((one) => one.model !== '' && model.includes(one.model)) ?? presets.at(-1)!;
}
