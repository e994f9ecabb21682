import type { RequestHandler } from 'express';
import type { Inflight } from '../request/inflight.ts';
import type { Backend } from './backend.ts';
import type { Fleet } from './fleet.ts';
import { ownGet } from './own-request.ts';

/** An answer is good for this long: probes of a balancer must not become load on the backends. */
const CACHE_MS = 1_000;
const ASK_MS = 1_000;

/** Answers 200 while at least one backend answers its `/health`, 503 otherwise and while the gateway stops. */
export function ready(fleet: Fleet, inflight: Pick<Inflight, 'draining'>): RequestHandler {
  let cached: { up: number; at: number } | undefined;
  let running: Promise<number> | undefined;

  const count = async (): Promise<number> => {
    const answers = await Promise.all(fleet.all.map(isUp));
    const up = answers.filter(Boolean).length;
    cached = { up, at: performance.now() };
    running = undefined;
    return up;
  };

  return async function answerReady(_request, response) {
    if (inflight.draining) {
      response.status(503).json({ status: 'draining' });
      return;
    }
    const fresh = cached !== undefined && performance.now() - cached.at < CACHE_MS ? cached.up : undefined;
    if (fresh === undefined) running ??= count();
    const up = fresh ?? (await running) ?? 0;
    const status = up > 0 ? 'ready' : 'no_backend';
    response.status(up > 0 ? 200 : 503).json({ status, backends: { up, total: fleet.all.length } });
  };
}

async function isUp(backend: Backend): Promise<boolean> {
  const answer = await ownGet(backend, '/health', ASK_MS);
  return answer.kind === 'answered' && answer.status >= 200 && answer.status < 300;
}
