import { type ErrorCode, GatewayError } from '../errors.ts';
import type { StopReason } from '../observe/outcomes.ts';

/** Why a request to a backend failed; a metric label. */
export const FAILURE_REASONS = [
  'connect',
  'connect_timeout',
  'reset',
  'first_byte_timeout',
  'idle_timeout',
  'total_timeout',
  'protocol',
] as const;
export type FailureReason = (typeof FAILURE_REASONS)[number];

const BY_CODE: Readonly<Record<string, FailureReason>> = {
  ECONNREFUSED: 'connect',
  ENOTFOUND: 'connect',
  EAI_AGAIN: 'connect',
  EHOSTUNREACH: 'connect',
  ENETUNREACH: 'connect',
  ETIMEDOUT: 'connect_timeout',
  // The backend was removed between the choice and the sending.
  UND_ERR_CLOSED: 'connect',
  UND_ERR_DESTROYED: 'connect',
  UND_ERR_CONNECT_TIMEOUT: 'connect_timeout',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  UND_ERR_SOCKET: 'reset',
  UND_ERR_HEADERS_TIMEOUT: 'first_byte_timeout',
  UND_ERR_BODY_TIMEOUT: 'idle_timeout',
};

/** Anything that is not a known connection error or timeout is a violation of the protocol. */
export function failureReason(error: unknown): FailureReason {
  const code = (error as { code?: unknown } | undefined)?.code;
  return (typeof code === 'string' ? BY_CODE[code] : undefined) ?? 'protocol';
}

const ANSWERS: Readonly<Record<FailureReason, { code: ErrorCode; message: string }>> = {
  connect: { code: 'upstream_unreachable', message: 'the gateway could not connect to a backend' },
  connect_timeout: { code: 'upstream_unreachable', message: 'the backend did not accept the connection in time' },
  reset: { code: 'upstream_broken', message: 'the backend closed the connection before its response was complete' },
  first_byte_timeout: { code: 'upstream_timeout', message: 'the backend did not start its response in time' },
  idle_timeout: { code: 'upstream_timeout', message: 'the backend stopped sending in the middle of its response' },
  total_timeout: { code: 'upstream_timeout', message: 'the request took longer than the gateway allows' },
  protocol: { code: 'upstream_broken', message: 'the response of the backend is not valid HTTP' },
};

/** What the client is told; backend addresses stay inside. */
export function failureAnswer(reason: FailureReason, cause?: unknown): GatewayError {
  const { code, message } = ANSWERS[reason];
  return new GatewayError(code, { message, cause });
}

/** What the client is told of a request that the gateway stops itself. */
export function stopAnswer(reason: Exclude<StopReason, 'client_left'>): GatewayError {
  if (reason === 'total_timeout') return failureAnswer('total_timeout');
  if (reason === 'key_revoked') {
    return new GatewayError('invalid_api_key', {
      message: 'the API key has been revoked',
      headers: { 'www-authenticate': 'Bearer' },
    });
  }
  return new GatewayError('draining', { headers: { 'retry-after': '1', connection: 'close' } });
}
