import { ownHeaders } from '../observe/record.ts';
import type { Exchange } from '../request/exchange.ts';

/** Answers with a JSON text, beside the gateway's own headers. `headers` are names and values in turn. */
export function sendJson(
  { response, record }: Exchange,
  status: number,
  json: string,
  headers: readonly string[] = [],
): void {
  const body = Buffer.from(json);
  const framing = ['content-type', 'application/json', 'content-length', String(body.length)];
  response.writeHead(status, [...headers, ...framing, ...ownHeaders(record)]).end(body);
}
