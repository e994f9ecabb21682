import type { Backend } from './backend.ts';
import { readHeadroom } from './headroom.ts';
import type { HealthSettings } from './health.ts';
import { modelEntries } from './model-list.ts';
import { ownGet } from './own-request.ts';
import { type Repeated, repeat } from './repeat.ts';

export interface MonitorSettings {
  health: HealthSettings;
  /** Milliseconds between two questions for models; 0: none. */
  modelsMs: number;
  /** The same for the KV pool. */
  headroomMs: number;
}

/** What a backend answered has changed where requests may go. */
export type OnChange = (backend: Backend) => void;

const MODELS_TIMEOUT_MS = 5_000;

/** Asks one backend from time to time how it is, which models it serves and what its KV pool has left. */
export interface Monitor {
  /** Asks for the models again; not more than once a second. */
  askModels(): void;
  stop(): void;
}

export function watch(backend: Backend, settings: () => MonitorSettings, onChange: OnChange): Monitor {
  let askedModelsAt = Number.NEGATIVE_INFINITY;
  const work: Repeated[] = [];

  const models = repeat(
    async () => {
      askedModelsAt = performance.now();
      const answer = await ownGet(backend, '/v1/models', MODELS_TIMEOUT_MS);
      // What it served before still holds while it cannot be asked.
      if (answer.kind === 'failed' || answer.status >= 500) return;
      const entries = answer.status === 200 ? modelEntries(answer.body) : undefined;
      const ids = entries?.map(({ id }) => id);
      backend.listed = entries;
      const changed = (ids?.join('\n') ?? '') !== [...(backend.learned ?? [])].join('\n');
      if (!changed) return;
      backend.learned = ids === undefined ? undefined : new Set(ids);
      onChange(backend);
    },
    () => (backend.asksModels ? settings().modelsMs : 0),
  );
  const health = repeat(
    async () => {
      const { path, timeout_ms, failures } = settings().health;
      const answer = await ownGet(backend, path, timeout_ms);
      const good = answer.kind === 'answered' && answer.status >= 200 && answer.status < 300;
      const changed = backend.health.note(good, failures);
      if (good && backend.learned === undefined) askModels();
      if (!changed) return;
      if (good) backend.breaker.recheck();
      onChange(backend);
    },
    () => {
      const { interval_ms } = settings().health;
      if (interval_ms === 0) backend.health.reset();
      return interval_ms;
    },
  );
  const headroom = repeat(
    async () => {
      backend.headroom = await readHeadroom(backend, Math.max(settings().headroomMs, 1_000));
    },
    () => settings().headroomMs,
  );
  work.push(models, health, headroom);

  const askModels = () => {
    if (!backend.asksModels || settings().modelsMs === 0 || performance.now() - askedModelsAt < 1_000) return;
    void models.now();
  };

  return {
    askModels,
    stop() {
      for (const repeated of work) repeated.stop();
    },
  };
}
