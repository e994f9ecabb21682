import type { IncomingMessage } from 'node:http';
import type { RequestHandler } from 'express';
import { GatewayError } from '../errors.ts';
import type { Guard, Handler } from '../request/exchange.ts';
import { LOOPBACK } from './config.ts';
import type { KeyEntry } from './entry.ts';
import type { Keyring } from './keyring.ts';

/**
 * Lets requests of a route with a good key pass, and puts the key on their record; without a keyring all of them. Nothing
 * of a body is read before.
 */
export function authenticate(path: string, keyring: Keyring | undefined): Guard {
  return function authenticateRequest({ request, record }) {
    if (keyring === undefined) return 'pass';
    record.route = path;
    const key = keyOf(request, keyring);
    if (key === undefined) throw refusal(request);
    record.key = key;
    record.priority = key.priority;
    return 'pass';
  };
}

/**
 * For `/metrics` on the listener of the API: while keys are on, processes of this machine may read it, as they could
 * without keys, and everybody else with a key. What a proxy on this machine passes on comes from elsewhere. For others the
 * route is as if it were not there.
 */
export function mayRead(keyring: Keyring | undefined): RequestHandler {
  return function mayReadMetrics(request, _response, next) {
    const peer = request.socket.remoteAddress?.replace(/^::ffff:/, '') ?? '';
    const forwarded = request.headers['x-forwarded-for'] !== undefined || request.headers.forwarded !== undefined;
    const local = LOOPBACK.test(peer) && !forwarded;
    if (keyring === undefined || local || keyOf(request, keyring) !== undefined) next();
    else next('route');
  };
}

/** Answers 401. */
export function refuseKey(path: string): Handler {
  return function answerRefusal({ request, record }) {
    record.route = path;
    throw refusal(request);
  };
}

/** `Authorization: Bearer`, as OpenAI's clients send it, or `x-api-key`, as Anthropic's do. */
function keyOf({ headers }: IncomingMessage, keyring: Keyring): KeyEntry | undefined {
  const bearer = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
  const found = bearer === undefined ? undefined : keyring.find(bearer);
  if (found !== undefined) return found;
  const other = headers['x-api-key'];
  return typeof other === 'string' ? keyring.find(other) : undefined;
}

function refusal({ headers }: IncomingMessage): GatewayError {
  const shown = headers.authorization !== undefined || headers['x-api-key'] !== undefined;
  return new GatewayError('invalid_api_key', {
    message: shown
      ? 'the API key is not valid: it is unknown or has been revoked'
      : 'an API key is required: send it as Authorization: Bearer, or as x-api-key',
    headers: { 'www-authenticate': 'Bearer' },
  });
}
