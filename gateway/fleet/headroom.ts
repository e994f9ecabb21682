import type { Backend, Headroom } from './backend.ts';
import { ownGet } from './own-request.ts';

/** The names of older versions as well. */
const USAGE = /^vllm:(?:kv|gpu)_cache_usage_perc(?:\{[^}]*\})?[ \t]+(\S+)/gm;
const WAITING = /^vllm:num_requests_waiting(?:\{[^}]*\})?[ \t]+(\S+)/gm;

/**
 * Asks the policy service beside the backend, and the backend's own `/metrics` where there is none or it knows no
 * engine. Engines of one backend (data parallel) count together. Never rejects.
 */
export async function readHeadroom(backend: Backend, timeoutMs: number): Promise<Headroom> {
  return (await fromPolicyService(backend)) ?? (await fromMetrics(backend, timeoutMs)) ?? { kind: 'unknown' };
}

async function fromPolicyService({ peer }: Backend): Promise<Headroom | undefined> {
  const engines = (await peer?.engines().catch(() => [])) ?? [];
  let [free, total, waiting] = [0, 0, 0];
  for (const { pool } of engines) {
    if (pool === undefined) continue;
    free += pool.freeBlocks;
    total += pool.totalBlocks;
    waiting += pool.waiting;
  }
  return total === 0 ? undefined : { kind: 'known', freeShare: free / total, waiting, at: performance.now() };
}

async function fromMetrics(backend: Backend, timeoutMs: number): Promise<Headroom | undefined> {
  const answer = await ownGet(backend, '/metrics', timeoutMs);
  return answer.kind === 'answered' && answer.status === 200 ? parseHeadroom(answer.body) : undefined;
}

/** From vLLM's metrics; undefined when they hold no usage. */
export function parseHeadroom(text: string, at = performance.now()): Headroom | undefined {
  const usages = values(text, USAGE);
  if (usages.length === 0) return undefined;
  const usage = usages.reduce((sum, value) => sum + value, 0) / usages.length;
  const waiting = values(text, WAITING).reduce((sum, value) => sum + value, 0);
  return { kind: 'known', freeShare: Math.min(1, Math.max(0, 1 - usage)), waiting, at };
}

function values(text: string, series: RegExp): number[] {
  return [...text.matchAll(series)].map(([, value]) => Number(value)).filter(Number.isFinite);
}
