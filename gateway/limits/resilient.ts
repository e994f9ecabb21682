import type { Logger } from '../../common/logger.ts';
import { type Lease, type Limiter, type Limits, RENEW_MS, type Verdict } from './limiter.ts';

/** While Redis fails, one command at a time asks whether it is back, this long after the last. */
const PROBE_MS = 500;

/** What Redis is asked for; a metric label. */
export const OPERATIONS = ['admit', 'look', 'settle', 'renew', 'charge'] as const;
export type Operation = (typeof OPERATIONS)[number];

/** What became of a request at the limits. */
export type LimitDecision = Verdict | { kind: 'unavailable' };

/** Limits that never make a request wait for a Redis that does not answer. */
export interface ResilientLimiter {
  /** False while Redis fails. */
  readonly healthy: boolean;
  /** `unavailable` only with `on_failure: deny`. Never rejects. */
  admit(lease: Lease, limits: Limits): Promise<LimitDecision>;
  /** As `admit`, but counts nothing. Never rejects. */
  look(key: string, limits: Limits): Promise<LimitDecision>;
  /** Never rejects, and need not be waited for. */
  settle(lease: Lease, tokens: number): Promise<void>;
  close(): void;
}

export interface ResilientDeps {
  /** Shared by all gateways. */
  shared: Limiter;
  /** This process' own. */
  local: Limiter;
  /** Writes something to Redis; rejects within the timeout of a command. */
  probe: () => Promise<unknown>;
  onFailure: 'local' | 'deny';
  logger: Logger;
  /** A command failed. */
  onFailed: (operation: Operation) => void;
  /** A request was decided without Redis. */
  onFallback: (outcome: 'local' | 'deny') => void;
}

/**
 * Counts in `shared` while it answers. The first command that fails turns it off for all requests, until a write is
 * answered; so a frozen Redis holds up those few that had asked already, for the timeout of one command. Tokens that could
 * not be told are told when it is back: then the day's budget holds for them too. A command whose answer was late may have
 * been carried out, so tokens of such a request can count twice, never not at all.
 */
export function createResilientLimiter(deps: ResilientDeps): ResilientLimiter {
  const { shared, local, logger } = deps;
  const running = new Map<string, Lease>();
  /** Tokens by key that `shared` does not know of. */
  const owed = new Map<string, number>();
  let healthy = true;
  let next: NodeJS.Timeout | undefined;
  let closed = false;

  const failed = (operation: Operation, error: unknown) => {
    deps.onFailed(operation);
    if (!healthy || closed) return;
    healthy = false;
    logger.warn({ reason: (error as Error).message, on_failure: deps.onFailure }, 'redis does not answer');
    schedule();
  };
  const schedule = () => {
    if (closed) return;
    next = setTimeout(() => void look(), PROBE_MS);
    next.unref();
  };
  const look = async () => {
    try {
      await deps.probe();
    } catch {
      schedule();
      return;
    }
    if (closed) return;
    healthy = true;
    logger.info('redis answers again');
    await payDebts();
  };
  const payDebts = async () => {
    for (const [key, tokens] of [...owed]) {
      if (!healthy) return;
      owed.delete(key);
      await shared.charge(key, tokens).catch((error: unknown) => {
        owe(key, tokens);
        failed('charge', error);
      });
    }
  };
  const owe = (key: string, tokens: number) => {
    if (tokens > 0) owed.set(key, (owed.get(key) ?? 0) + tokens);
  };
  const renewal = setInterval(() => {
    if (healthy && running.size > 0) shared.renew([...running.values()]).catch((error) => failed('renew', error));
  }, RENEW_MS);
  renewal.unref();

  return {
    get healthy() {
      return healthy;
    },
    async admit(lease, limits) {
      if (healthy) {
        try {
          const verdict = await shared.admit(lease, limits);
          if (verdict.kind === 'admitted') running.set(lease.id, lease);
          return verdict;
        } catch (error) {
          failed('admit', error);
        }
      }
      deps.onFallback(deps.onFailure);
      return deps.onFailure === 'deny' ? { kind: 'unavailable' } : await local.admit(lease, limits);
    },
    async look(key, limits) {
      if (healthy) {
        try {
          return await shared.look(key, limits);
        } catch (error) {
          failed('look', error);
        }
      }
      return deps.onFailure === 'deny' ? { kind: 'unavailable' } : await local.look(key, limits);
    },
    async settle(lease, tokens) {
      if (!running.delete(lease.id)) {
        await local.settle(lease, tokens);
        if (healthy) await shared.charge(lease.key, tokens).catch((error: unknown) => late('charge', error));
        else owe(lease.key, tokens);
        return;
      }
      if (healthy) await shared.settle(lease, tokens).catch((error: unknown) => late('settle', error));
      else owe(lease.key, tokens);

      function late(operation: 'settle' | 'charge', error: unknown) {
        owe(lease.key, tokens);
        failed(operation, error);
      }
    },
    close() {
      closed = true;
      clearTimeout(next);
      clearInterval(renewal);
    },
  };
}
