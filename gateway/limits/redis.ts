import type { Redis } from 'ioredis';
import { type Lease, LIMIT_NAMES, type Limiter, MAX_RESERVE, type Verdict, WINDOWS, type Windows } from './limiter.ts';
import { LIMIT_SCRIPT, RENEW_SCRIPT } from './script.ts';

type Answer = [
  limit: number,
  retryMs: number,
  requests: number,
  tokens: number,
  tokensToday: number,
  reserved: number,
  running: number,
  requestsResetMs: number,
  tokensResetMs: number,
];

type Scripted = Redis & {
  crystalkvLimit(counts: string, running: string, ...args: (string | number)[]): Promise<Answer>;
  crystalkvRenew(counts: string, running: string, ...args: (string | number)[]): Promise<number>;
};

/**
 * Counters that all gateways on one Redis share. Every call rejects when Redis does not answer in time. `now`, for tests,
 * takes the place of Redis' own clock.
 */
export function createRedisLimiter(
  redis: Redis,
  prefix: string,
  windows: Windows = WINDOWS,
  now?: () => number,
): Limiter {
  redis.defineCommand('crystalkvLimit', { numberOfKeys: 2, lua: LIMIT_SCRIPT });
  redis.defineCommand('crystalkvRenew', { numberOfKeys: 2, lua: RENEW_SCRIPT });
  const scripted = redis as Scripted;
  const { slice, slices, day, lease } = windows;
  // One slot in a cluster.
  const countsOf = (key: string) => `${prefix}:{${key}}:counts`;
  const runningOf = (key: string) => `${prefix}:{${key}}:running`;
  const reservedBy = ({ reserve }: Pick<Lease, 'reserve'>) => Math.min(reserve, MAX_RESERVE);
  const member = (lease: Lease) => `${lease.id}|${reservedBy(lease)}`;
  const run = (operation: string, key: string, ...args: (string | number)[]) =>
    scripted.crystalkvLimit(
      countsOf(key),
      runningOf(key),
      operation,
      now?.() ?? '',
      slice,
      slices,
      day,
      lease,
      ...args,
    );

  return {
    async admit({ key, id, reserve }, limits) {
      const { requestsPerMinute, tokensPerMinute, concurrentRequests, tokensPerDay } = limits;
      const wanted = [requestsPerMinute, tokensPerMinute, concurrentRequests, tokensPerDay];
      return verdictOf(await run('admit', key, id, reservedBy({ reserve }), ...wanted.map((limit) => limit ?? '')));
    },
    async look(key, limits) {
      const { requestsPerMinute, tokensPerMinute, concurrentRequests, tokensPerDay } = limits;
      const wanted = [requestsPerMinute, tokensPerMinute, concurrentRequests, tokensPerDay];
      return verdictOf(await run('look', key, '', 0, ...wanted.map((limit) => limit ?? '')));
    },
    async settle({ key, id, reserve }, tokens) {
      await run('settle', key, id, reservedBy({ reserve }), tokens);
    },
    async charge(key, tokens) {
      await run('charge', key, tokens);
    },
    async renew(leases) {
      const byKey = new Map<string, Lease[]>();
      for (const one of leases) {
        const ofKey = byKey.get(one.key);
        if (ofKey === undefined) byKey.set(one.key, [one]);
        else ofKey.push(one);
      }
      await Promise.all(
        [...byKey].map(([key, ofKey]) =>
          scripted.crystalkvRenew(countsOf(key), runningOf(key), now?.() ?? '', lease, ...ofKey.map(member)),
        ),
      );
    },
  };
}

function verdictOf(answer: Answer): Verdict {
  const [limit, retryMs, requests, tokens, tokensToday, reserved, running, requestsResetMs, tokensResetMs] = answer;
  const counts = { requests, tokens, tokensToday, reserved, running, requestsResetMs, tokensResetMs };
  const name = LIMIT_NAMES[limit - 1];
  return name === undefined ? { kind: 'admitted', counts } : { kind: 'refused', limit: name, retryMs, counts };
}
