import { z } from 'zod';
import { whole } from '../../common/bounds.ts';

/** The options `gateway.admission`. */
export const admissionSchema = z
  .strictObject({
    concurrency: whole(1, 1_000_000)
      .default(10_000)
      .describe('Most concurrent requests at one backend; others wait (1 to 1000000)'),
    queue: whole(0, 100_000)
      .default(1_000)
      .describe('Most requests waiting for the backends of a model; others get a 429 (0 to 100000)'),
    queue_bytes: whole(0, 2 ** 40)
      .default(256 * 1024 * 1024)
      .describe('Most bytes of waiting bodies, for all models together (0 to 1099511627776)'),
    body_bytes: whole(1024, 2 ** 40)
      .default(192 * 1024 * 1024)
      .describe(
        'Most bytes of request bodies in memory, of all requests whose response has not begun; beyond it a 503. At least body_limit_bytes (1024 to 1099511627776)',
      ),
    queue_ms: whole(1, 3_600_000).default(30_000).describe('Longest wait in the queue; then a 503 (1 to 3600000)'),
    event_loop_delay_ms: whole(0, 60_000)
      .default(1_000)
      .describe('Mean event-loop delay over a second above which new requests get a 503; 0: never (to 60000)'),
  })
  .prefault({});
export type AdmissionSettings = z.output<typeof admissionSchema>;
