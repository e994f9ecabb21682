import { GatewayError } from '../errors.ts';
import type { Backend } from '../fleet/backend.ts';
import type { Permit } from '../fleet/breaker.ts';
import type { Demand, Fleet } from '../fleet/fleet.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { AdmissionSettings } from './config.ts';
import { WaitQueue } from './queue.ts';

/** Lets requests to backends: so many at a time to each, the others wait in a bounded queue for each model. */
export interface Admission {
  /**
   * A backend for the request, which counts as sent from now on; call `leave` when it has ended. Undefined: `signal` was
   * aborted while it waited. Throws, or rejects with, `queue_full` (429), `queue_timeout` (503), or what `Fleet.pick`
   * throws. `onQueued` is called when it has to wait.
   */
  enter(request: AdmissionRequest): Slot | Promise<Slot | undefined>;
  leave(backend: Backend): void;
  readonly depth: number;
}

/** A request's slot at a backend. */
export interface Slot {
  readonly backend: Backend;
  readonly permit: Permit;
}

export interface AdmissionRequest {
  demand: Demand;
  priority: number;
  /** Bytes that are held while it waits. */
  bytes: number;
  signal: AbortSignal;
  onQueued(): void;
}

interface Waiter {
  readonly pool: string;
  readonly demand: Demand;
  readonly priority: number;
  readonly bytes: number;
  readonly since: number;
  settle(end: { kind: 'slot'; slot: Slot } | { kind: 'error'; error: unknown } | { kind: 'stopped' }): void;
}

/** So many are asked whether a free slot is for them: one that a first attempt excludes must not hold up all others. */
const LOOKED_AT = 16;
/** Weight of the newest wait in the mean that `Retry-After` is made of. */
const NEWEST = 0.2;
const RETRY_AFTER_S = { min: 1, max: 60 } as const;

/** Serves those that wait whenever `fleet` may have room. */
export function createAdmission(
  fleet: Fleet,
  settings: () => AdmissionSettings,
  metrics: Pick<Metrics, 'queueSeconds' | 'shed'>,
): Admission {
  const pools = new Map<string, WaitQueue<Waiter>>();
  let depth = 0;
  let bytes = 0;
  let meanWaitMs = 0;

  const take = (demand: Demand): Slot | undefined => {
    const backend = fleet.pick(demand);
    return backend === undefined ? undefined : { backend, permit: backend.begin() };
  };

  const remove = (waiter: Waiter): boolean => {
    const queue = pools.get(waiter.pool);
    if (queue === undefined || !queue.remove(waiter)) return false;
    if (queue.length === 0) pools.delete(waiter.pool);
    depth--;
    bytes -= waiter.bytes;
    const waitedMs = performance.now() - waiter.since;
    meanWaitMs += (waitedMs - meanWaitMs) * NEWEST;
    metrics.queueSeconds.observe(waitedMs / 1000);
    return true;
  };

  /** An error with the time after which a slot is likely. */
  const refusal = (code: 'queue_full' | 'queue_timeout'): GatewayError => {
    const seconds = Math.ceil(meanWaitMs / 1000);
    const retryAfter = Math.min(RETRY_AFTER_S.max, Math.max(RETRY_AFTER_S.min, seconds));
    return new GatewayError(code, { headers: { 'retry-after': String(retryAfter) } });
  };

  /** Makes room in the queue for a request, at the cost of one with a lower priority; throws when there is none. */
  const makeRoom = (pool: string, { priority, bytes: more }: AdmissionRequest) => {
    const limit = settings();
    const queue = pools.get(pool);
    const fits = (queue?.length ?? 0) < limit.queue && bytes + more <= limit.queue_bytes;
    if (fits) return;
    const last = queue?.last;
    const makesRoom = last !== undefined && last.priority < priority && bytes - last.bytes + more <= limit.queue_bytes;
    if (!makesRoom) {
      metrics.shed.inc({ reason: 'queue_full' });
      throw refusal('queue_full');
    }
    metrics.shed.inc({ reason: 'displaced' });
    remove(last);
    last.settle({ kind: 'error', error: refusal('queue_full') });
  };

  const wait = (pool: string, { demand, priority, bytes: held, signal }: AdmissionRequest): Promise<Slot | undefined> =>
    new Promise((resolve, reject) => {
      const waiter: Waiter = {
        pool,
        demand,
        priority,
        bytes: held,
        since: performance.now(),
        settle(end) {
          clearTimeout(timer);
          signal.removeEventListener('abort', onAbort);
          if (end.kind === 'error') reject(end.error);
          else resolve(end.kind === 'slot' ? end.slot : undefined);
        },
      };
      const onAbort = () => {
        if (remove(waiter)) waiter.settle({ kind: 'stopped' });
      };
      const timer = setTimeout(() => {
        if (!remove(waiter)) return;
        metrics.shed.inc({ reason: 'queue_timeout' });
        waiter.settle({ kind: 'error', error: refusal('queue_timeout') });
      }, settings().queue_ms);
      signal.addEventListener('abort', onAbort, { once: true });
      let queue = pools.get(pool);
      if (queue === undefined) {
        queue = new WaitQueue();
        pools.set(pool, queue);
      }
      queue.add(waiter);
      depth++;
      bytes += held;
    });

  /** Gives free slots of one pool to those that wait for them. */
  const serve = (queue: WaitQueue<Waiter>) => {
    for (let served = true; served; ) {
      served = false;
      for (const waiter of queue.first(LOOKED_AT)) {
        let end: Parameters<Waiter['settle']>[0];
        try {
          const slot = take(waiter.demand);
          if (slot === undefined) continue;
          end = { kind: 'slot', slot };
        } catch (error) {
          end = { kind: 'error', error };
        }
        remove(waiter);
        waiter.settle(end);
        served = true;
      }
    }
  };

  const wake = () => {
    if (depth === 0) return;
    // The pool whose first has the highest priority, then the one that waits the longest.
    const heads = [...pools.values()].toSorted((a, b) => {
      const [first] = a;
      const [second] = b;
      if (first === undefined || second === undefined) return 0;
      return second.priority - first.priority || first.since - second.since;
    });
    for (const queue of heads) serve(queue);
  };

  fleet.onRoom(wake);

  return {
    enter(request) {
      const slot = take(request.demand);
      if (slot !== undefined) return slot;
      const pool = fleet.poolOf(request.demand);
      if (request.signal.aborted) return Promise.resolve(undefined);
      makeRoom(pool, request);
      request.onQueued();
      return wait(pool, request);
    },
    leave(backend) {
      backend.end();
      wake();
    },
    get depth() {
      return depth;
    },
  };
}
