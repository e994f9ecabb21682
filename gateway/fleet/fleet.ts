import { Backend, type BackendSpec, type ConnectionTimes } from './backend.ts';

/** What a request needs of a backend. */
export interface Want {
  /** The model that it names, as the backends know it. */
  model: string | undefined;
  /** The backends that it was tried on; they come last. */
  tried: readonly Backend[];
}

export interface Fleet {
  /** Those that may be picked. */
  readonly all: readonly Backend[];
  /** And those that only finish what they have. */
  readonly known: readonly Backend[];
  /** The one with the least outstanding requests that was not tried and does not rest, in turn among equals. */
  pick(want: Want): Backend | undefined;
  /** Takes the new list: the same address stays the same backend, removed ones finish what they have. */
  replace(specs: readonly BackendSpec[]): void;
  /** Ends every connection, running requests included. */
  close(): Promise<void>;
}

export interface FleetDeps {
  times: ConnectionTimes;
  onAdded(backend: Backend): void;
  /** A backend that was removed has ended its last request. */
  onGone(backend: Backend): void;
}

export function createFleet(specs: readonly BackendSpec[], deps: FleetDeps): Fleet {
  let all: Backend[] = [];
  const leaving = new Set<Backend>();
  let turn = 0;

  const replace = (next: readonly BackendSpec[]) => {
    const before = new Map(all.map((backend) => [backend.url, backend]));
    all = next.map((spec) => {
      const same = before.get(spec.url);
      if (same === undefined) {
        const added = new Backend(spec, deps.times);
        deps.onAdded(added);
        return added;
      }
      before.delete(spec.url);
      same.spec = spec;
      return same;
    });
    for (const backend of before.values()) {
      leaving.add(backend);
      void backend.leave().then(() => {
        leaving.delete(backend);
        if (!all.some(({ url }) => url === backend.url)) deps.onGone(backend);
      });
    }
  };
  replace(specs);

  return {
    get all() {
      return all;
    },
    get known() {
      return [...all, ...leaving];
    },
    pick({ tried }) {
      const now = performance.now();
      turn++;
      let best: Backend | undefined;
      let bestRank = 0;
      for (let i = 0; i < all.length; i++) {
        const candidate = all[(turn + i) % all.length] as Backend;
        const rank = tried.includes(candidate) ? 2 : candidate.restsUntil > now ? 1 : 0;
        const better =
          best === undefined || rank < bestRank || (rank === bestRank && candidate.outstanding < best.outstanding);
        if (!better) continue;
        best = candidate;
        bestRank = rank;
      }
      return best;
    },
    replace,
    async close() {
      await Promise.all([...all, ...leaving].map((backend) => backend.close()));
    },
  };
}
