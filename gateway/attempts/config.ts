import { z } from 'zod';
import { share, whole } from '../../common/bounds.ts';
import { SAME_BACKEND } from './retry.ts';

/** The options `gateway.retries`. */
export const retriesSchema = z
  .strictObject({
    max: whole(0, 10)
      .default(2)
      .describe(
        'Most retries of one request, before the first byte of its response: after a connection that could not be made, a 408, 429, 502, 503 or 504, and once, on the same backend, after an idle connection that was closed (0 to 10)',
      ),
    same_backend: z
      .enum(SAME_BACKEND)
      .default('connection')
      .describe(
        `Whether to retry on the same backend when there is no other: ${SAME_BACKEND.join(', ')}; connection: only after a lost connection`,
      ),
    budget_share: share()
      .default(0.2)
      .describe('Most retries, as a share of the requests of the last 10 to 20 s (0 to 1)'),
    budget_min: whole(0, 100_000).default(10).describe('Retries in that time that are always allowed (0 to 100000)'),
    backoff_ms: whole(1, 60_000)
      .default(100)
      .describe(
        'Wait before a retry on the same backend; doubles with each retry, minus a random part of up to half (1 to 60000)',
      ),
    backoff_max_ms: whole(1, 600_000).default(2_000).describe('Longest such wait (1 to 600000)'),
    retry_after_max_ms: whole(0, 600_000)
      .default(10_000)
      .describe(
        'Longest Retry-After that the gateway waits for; an answer with a longer one is passed on (0 to 600000)',
      ),
  })
  .prefault({});
