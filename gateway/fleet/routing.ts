import { GatewayError, modelNotFound } from '../errors.ts';
import type { Backend } from './backend.ts';

/** What becomes of a request for a model that no backend is known to serve. */
export const UNLISTED = ['refuse', 'any'] as const;

/** Which backends serve which model. Built anew when a list changes, so that a request costs one look-up. */
export interface Routing {
  /** Those that a request for `model` may go to, at least one. Throws `model_not_found` or `no_backend`. */
  candidates(model: string | undefined): readonly Backend[];
  /** Whether some backend is known to serve it. */
  knows(model: string): boolean;
  /** Whether some backend is known not to serve what another does. */
  readonly modelsDiffer: boolean;
}

/**
 * A backend that said what it serves gets requests for that. One whose models are not known gets those that no other
 * serves: it may know them, and says so itself if it does not.
 */
export function createRouting(all: readonly Backend[], unlisted: (typeof UNLISTED)[number]): Routing {
  const byModel = new Map<string, Backend[]>();
  const unknown: Backend[] = [];
  for (const backend of all) {
    if (backend.models === undefined) unknown.push(backend);
    for (const model of backend.models ?? []) {
      const list = byModel.get(model);
      if (list === undefined) byModel.set(model, [backend]);
      else list.push(backend);
    }
  }
  return {
    modelsDiffer: [...byModel.values()].some((serving) => serving.length + unknown.length < all.length),
    knows: (model) => byModel.has(model),
    candidates(model) {
      if (all.length === 0) throw new GatewayError('no_backend', { headers: { 'retry-after': '1' } });
      if (model === undefined) return all;
      const serving = byModel.get(model) ?? unknown;
      if (serving.length > 0) return serving;
      if (unlisted === 'any') return all;
      throw modelNotFound(model);
    },
  };
}
