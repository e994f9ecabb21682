import { z } from 'zod';
import { ownHeaders } from '../observe/record.ts';
import type { Guard } from '../request/exchange.ts';

const ORIGIN = /^https?:\/\/[a-z0-9.[\]:-]+$/;

/** The part `gateway.cors` of the configuration. */
export const corsSchema = z
  .strictObject({
    origins: z
      .array(
        z
          .string()
          .refine((text) => text === '*' || ORIGIN.test(text), 'must be an origin such as https://app.example, or *'),
      )
      .max(64, 'must name at most 64 origins')
      .default([])
      .describe('Origins whose web pages may call the gateway from a browser; *: all'),
  })
  .prefault({});
export type CorsConfig = z.output<typeof corsSchema>;

/** Names of headers: what a browser may ask to send. */
const NAMES = /^[a-z0-9-]+( *, *[a-z0-9-]+)*$/i;
const MAX_NAMES_BYTES = 2_048;
const EXPOSED = [
  'x-request-id',
  'x-crystalkv-id',
  'retry-after',
  'retry-after-ms',
  'x-should-retry',
  ...['limit', 'remaining', 'reset'].flatMap((part) => [`x-ratelimit-${part}-requests`, `x-ratelimit-${part}-tokens`]),
].join(', ');
const PREFLIGHT_SECONDS = '600';

/**
 * Lets pages of the allowed origins read answers, and answers their preflights: with every header that they ask for, since
 * the clients of OpenAI send a dozen of their own, and the origin is trusted. Never with cookies: keys are in headers.
 */
export function cors({ origins }: CorsConfig): Guard {
  const allowed = new Set(origins);
  return function addCors({ request, response, record }) {
    if (allowed.size === 0) return 'pass';
    record.answerHeaders.push('vary', 'Origin');
    const { origin } = request.headers;
    if (origin === undefined || !(allowed.has('*') || allowed.has(origin))) return 'pass';
    record.answerHeaders.push('access-control-allow-origin', origin);
    if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) {
      record.answerHeaders.push('access-control-expose-headers', EXPOSED);
      return 'pass';
    }
    const asked = request.headers['access-control-request-headers'] ?? '';
    const headers = ['access-control-allow-methods', 'GET, POST', 'access-control-max-age', PREFLIGHT_SECONDS];
    if (asked.length <= MAX_NAMES_BYTES && NAMES.test(asked)) headers.push('access-control-allow-headers', asked);
    response.writeHead(204, [...headers, ...ownHeaders(record)]).end();
    return 'answered';
  };
}
