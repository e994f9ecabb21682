import type { Backend } from '../fleet/backend.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { modelEntries } from '../fleet/model-list.ts';
import { ownGet } from '../fleet/own-request.ts';

/** How many tokens prompt and output of a model may have together. */
export interface ModelLengths {
  /** `model` as backends know it. Undefined: no backend tells. Backends that were never asked are asked. Never rejects. */
  of(model: string | undefined): Promise<number | undefined>;
}

const ASK_MS = 1_000;
/** One that did not tell is asked again after this. */
const AGAIN_MS = 30_000;

export function createModelLengths(fleet: Pick<Fleet, 'all'>): ModelLengths {
  const askedAt = new WeakMap<Backend, number>();
  let asking: Promise<unknown> | undefined;

  const known = (model: string | undefined): number | undefined => {
    const entries = fleet.all.flatMap(({ listed }) => listed ?? []);
    const lengths = entries
      .filter(({ id }) => model === undefined || id === model)
      .map((entry) => entry['max_model_len'])
      .filter((length) => typeof length === 'number' && Number.isSafeInteger(length) && length > 0) as number[];
    return lengths.length === 0 ? undefined : Math.max(...lengths);
  };
  const ask = async (backend: Backend) => {
    askedAt.set(backend, performance.now());
    const answer = await ownGet(backend, '/v1/models', ASK_MS);
    if (answer.kind === 'answered' && answer.status === 200) backend.listed = modelEntries(answer.body);
  };

  return {
    async of(model) {
      const unasked = fleet.all.filter(
        (one) => one.listed === undefined && performance.now() - (askedAt.get(one) ?? -AGAIN_MS) >= AGAIN_MS,
      );
      if (unasked.length > 0)
        asking = Promise.all([asking, ...unasked.map(ask)]).finally(() => {
          asking = undefined;
        });
      if (known(model) === undefined) await asking;
      return known(model);
    },
  };
}
