import { randomUUID } from 'node:crypto';

const PLAIN = /^[A-Za-z0-9._:-]{1,128}$/;

/** The client's `X-Request-Id` when it is short and plain, else a new one. It is in logs, so nothing else may pass. */
export function requestId(fromClient: string | string[] | undefined): string {
  return typeof fromClient === 'string' && PLAIN.test(fromClient) ? fromClient : `req-${randomUUID()}`;
}

/** The id on which gateway, engine and policy service join what they know: engines change request ids, not this. */
export function crystalKvId(): string {
  return `ckv-${randomUUID()}`;
}
