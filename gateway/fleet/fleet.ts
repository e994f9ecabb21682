import type { Logger } from '../../common/logger.ts';
import { GatewayError } from '../errors.ts';
import { Backend, type ConnectionTimes } from './backend.ts';
import { type BalanceSettings, choose } from './balance.ts';
import type { FleetSettings } from './config.ts';
import { createDiscovery, type Resolve, resolverFor } from './discovery.ts';
import { createHomes } from './homes.ts';
import { inService } from './in-service.ts';
import { type Monitor, watch } from './monitor.ts';
import type { PolicyPeerOptions } from './policy-peer.ts';
import { createRouting } from './routing.ts';

/** What a request needs of a backend. */
export interface Demand {
  /** The model that it names, as the backends know it. */
  model: string | undefined;
  /** Of its conversation; undefined when there is none or no rule asks for it. */
  prefixHash?: number | undefined;
  /** The URL of the only backend that can serve it. */
  only?: string | undefined;
  /** The one that it goes to once more: its connection was lost, and whether it began is not known. */
  again?: Backend | undefined;
  /** The backends that it was tried on; they come last. */
  tried: readonly Backend[];
  /** It costs a backend next to nothing, and is sent however busy that is. */
  light?: boolean | undefined;
}

export interface Fleet {
  /** Those that may be picked. */
  readonly all: readonly Backend[];
  /** And those that only finish what they have. */
  readonly known: readonly Backend[];
  readonly aliases: ReadonlyMap<string, string>;
  /** Whether a request's model matters to where it goes. */
  readonly looksAtModels: boolean;
  /** Whether some backend is known not to serve what another does. */
  readonly modelsDiffer: boolean;
  /**
   * A backend with room, by the balancing rule: first those that were not tried, do not rest, and have a weight. Undefined: all are full.
   * Throws `model_not_found` or `no_backend`.
   */
  pick(demand: Demand): Backend | undefined;
  /** Whether `pick` could give one that was not tried. Does not throw. */
  hasAnother(demand: Demand): boolean;
  /** Requests of the same pool wait for the same backends. There are no more pools than models and backends, and one. */
  poolOf(demand: Demand): string;
  /** The name under which backends know a model. */
  resolve(model: string): string;
  /** What the balancing rule knows a conversation by; undefined: it does not look. */
  readonly conversations: Pick<BalanceSettings, 'prefix_bytes' | 'session_header'> | undefined;
  /** Calls `listener` whenever there may be room where there was none. */
  onRoom(listener: () => void): void;
  /** Takes new settings: the same address stays the same backend, removed ones finish what they have. */
  update(settings: FleetSettings): void;
  /** Names were resolved once, or could not be. */
  ready(): Promise<void>;
  /** Ends every timer and connection, running requests included. */
  close(): Promise<void>;
}

export interface FleetDeps {
  times: ConnectionTimes;
  policy: Omit<PolicyPeerOptions, 'address'>;
  logger: Logger;
  /** Most requests that one backend gets at the same time. */
  concurrency: () => number;
  onAdded(backend: Backend): void;
  /** A backend that was removed has ended its last request. */
  onGone(backend: Backend): void;
  onDns(name: string, result: 'ok' | 'error'): void;
  /** Instead of the system's resolver and `dns_servers`. */
  resolve?: Resolve | undefined;
}

export function createFleet(initial: FleetSettings, deps: FleetDeps): Fleet {
  const { logger } = deps;
  let settings = initial;
  let aliases = new Map(Object.entries(settings.models.aliases));
  let all: Backend[] = [];
  let routing = createRouting(all, settings.models.unlisted);
  const monitors = new Map<Backend, Monitor>();
  const leaving = new Set<Backend>();
  let resolver = deps.resolve ?? resolverFor(settings.dns_servers);
  const homes = createHomes();
  const roomListeners: (() => void)[] = [];
  const tellRoom = () => {
    for (const listener of roomListeners) listener();
  };

  const monitorSettings = () => ({
    health: settings.health,
    // One backend gets every request, and says itself what it does not serve.
    modelsMs: settings.models.learn && all.length > 1 ? settings.models.interval_ms : 0,
    headroomMs: settings.balance.rule === 'kv_headroom' ? settings.balance.headroom_interval_ms : 0,
  });
  const onChange = (backend: Backend) => {
    const { url } = backend;
    logger.info({ backend: url, healthy: backend.health.unhealthySince === undefined }, 'backend state changed');
    routing = createRouting(all, settings.models.unlisted);
    tellRoom();
  };

  const add = (backend: Backend) => {
    deps.onAdded(backend);
    monitors.set(backend, watch(backend, monitorSettings, onChange));
    return backend;
  };
  const remove = async (backend: Backend) => {
    monitors.get(backend)?.stop();
    monitors.delete(backend);
    leaving.add(backend);
    await backend.leave();
    leaving.delete(backend);
    // The address may be back by now, as a backend of its own.
    if (!all.some(({ url }) => url === backend.url)) deps.onGone(backend);
  };

  const discovery = createDiscovery(settings.backends, {
    logger,
    resolve: () => resolver,
    onError: (name) => deps.onDns(name, 'error'),
    onSuccess: (name) => deps.onDns(name, 'ok'),
    onList(specs) {
      const before = new Map(all.map((backend) => [backend.url, backend]));
      const added: Backend[] = [];
      all = specs.map((spec) => {
        const same = before.get(spec.url);
        before.delete(spec.url);
        same?.update(spec);
        if (same !== undefined) return same;
        const backend = new Backend(spec, { times: deps.times, policy: deps.policy, breaker: () => settings.breaker });
        added.push(backend);
        return backend;
      });
      routing = createRouting(all, settings.models.unlisted);
      for (const backend of added) add(backend);
      for (const backend of before.values()) void remove(backend);
      if (added.length > 0 || before.size > 0) {
        const removed = [...before.keys()];
        logger.info({ added: added.map(({ url }) => url), removed, total: all.length }, 'backend list changed');
      }
      tellRoom();
    },
  });

  /** Those that may be asked at all. */
  const candidates = ({ model, only, again }: Demand): readonly Backend[] => {
    if (again !== undefined) {
      if (all.includes(again)) return [again];
      throw new GatewayError('upstream_broken');
    }
    if (only !== undefined) {
      const found = all.filter(({ url }) => url === only);
      if (found.length === 0) throw new GatewayError('response_not_found');
      return found;
    }
    let serving: readonly Backend[];
    try {
      serving = routing.candidates(model);
    } catch (error) {
      // It may have been loaded since.
      if (model !== undefined) for (const monitor of monitors.values()) monitor.askModels();
      throw error;
    }
    return inService(serving, settings.breaker.max_ejected_share);
  };
  const hasRoom = ({ outstanding }: Backend, limit: number) => outstanding < limit;

  return {
    get all() {
      return all;
    },
    get known() {
      return [...all, ...leaving];
    },
    get aliases() {
      return aliases;
    },
    get looksAtModels() {
      return all.length > 1 || aliases.size > 0;
    },
    get modelsDiffer() {
      return routing.modelsDiffer;
    },
    get conversations() {
      return settings.balance.rule === 'prefix_affinity' && all.length > 1 ? settings.balance : undefined;
    },
    poolOf({ only, model, again }) {
      if (again !== undefined) return `backend ${again.url}`;
      if (only !== undefined) return `backend ${only}`;
      return model !== undefined && routing.knows(model) ? `model ${model}` : 'any';
    },
    pick(demand) {
      const limit = demand.light ? Number.POSITIVE_INFINITY : deps.concurrency();
      const list = candidates(demand);
      const [first] = list;
      if (list.length === 1 && first !== undefined) return hasRoom(first, limit) ? first : undefined;
      const now = performance.now();
      const rank = (backend: Backend) => {
        const spare = backend.weight === 0 ? 1 : 0;
        if (demand.tried.includes(backend)) return 4 + spare;
        return backend.restsUntil > now ? 2 + spare : spare;
      };
      const full = 6;
      let best = full;
      let same = true;
      for (const backend of list) {
        const its = hasRoom(backend, limit) ? rank(backend) : full;
        if (its !== best && backend !== list[0]) same = false;
        if (its < best) best = its;
      }
      if (best === full) return undefined;
      const open = same ? list : list.filter((backend) => hasRoom(backend, limit) && rank(backend) === best);
      const { prefixHash } = demand;
      const home = prefixHash === undefined ? undefined : homes.of(prefixHash);
      const chosen = choose(open, { prefixHash, home }, settings.balance);
      if (prefixHash !== undefined) homes.moved(prefixHash, chosen);
      return chosen;
    },
    hasAnother(demand) {
      if (all.length === 1 && demand.tried.length > 0) return false;
      const limit = demand.light ? Number.POSITIVE_INFINITY : deps.concurrency();
      let list: readonly Backend[];
      try {
        list = candidates(demand);
      } catch {
        // The list has changed since the first attempt.
        return false;
      }
      return list.some((backend) => !demand.tried.includes(backend) && hasRoom(backend, limit));
    },
    resolve: (model) => aliases.get(model) ?? model,
    onRoom: (listener) => void roomListeners.push(listener),
    update(next) {
      settings = next;
      aliases = new Map(Object.entries(next.models.aliases));
      resolver = deps.resolve ?? resolverFor(next.dns_servers);
      discovery.replace(next.backends);
    },
    ready: () => discovery.ready(),
    async close() {
      discovery.close();
      for (const monitor of monitors.values()) monitor.stop();
      await Promise.all([...all, ...leaving].map((backend) => backend.close()));
    },
  };
}
