import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** Short and plain, because it goes into headers and logs. */
const PLAIN = /^[\w.:-]{1,128}$/;

/**
 * The id of a request, sent back as `X-Request-Id`: the client's header, else the body's `request_id`, else a new one.
 * Ids that are not short and plain are ignored.
 */
export function adoptRequestId(request: IncomingMessage, response: ServerResponse, inBody?: string | null): string {
  const header = request.headers['x-request-id'];
  const given = [header, inBody].find((id): id is string => typeof id === 'string' && PLAIN.test(id));
  const already = response.getHeader('x-request-id');
  const id = given ?? (typeof already === 'string' ? already : randomUUID().replaceAll('-', ''));
  response.setHeader('x-request-id', id);
  return id;
}
