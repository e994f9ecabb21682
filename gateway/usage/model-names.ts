import type { Fleet } from '../fleet/fleet.ts';
import { modelIds } from '../fleet/model-list.ts';
import { ownGet } from '../fleet/own-request.ts';

export const OTHER_MODEL = 'other';

/** Between two questions for names that are not known. */
const ASK_MS = 30_000;
const ANSWER_MS = 2_000;
const MAX_NAMES = 1_000;

/**
 * The names of models that may be a metric's label: those of the configuration, and those that backends say they serve.
 * Whatever else a client writes is `other`. Backends are asked when a name is not known, at most every 30 s.
 */
export interface ModelNames {
  label(model: string | undefined): string;
}

export function createModelNames(fleet: Pick<Fleet, 'all' | 'aliases'>): ModelNames {
  const learned = new Set<string>();
  let askedAt = Number.NEGATIVE_INFINITY;

  const ask = async () => {
    const answers = await Promise.all(fleet.all.map((backend) => ownGet(backend, '/v1/models', ANSWER_MS)));
    for (const answer of answers) {
      if (answer.kind !== 'answered' || answer.status !== 200) continue;
      for (const name of modelIds(answer.body) ?? []) if (learned.size < MAX_NAMES) learned.add(name);
    }
  };

  return {
    label(model) {
      if (model === undefined) return OTHER_MODEL;
      if (learned.has(model) || fleet.aliases.has(model)) return model;
      if (fleet.all.some(({ models }) => models?.has(model))) return model;
      if (performance.now() - askedAt > ASK_MS) {
        askedAt = performance.now();
        void ask();
      }
      return OTHER_MODEL;
    },
  };
}
