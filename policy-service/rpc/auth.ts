import { createHash, timingSafeEqual } from 'node:crypto';
import { ServerInterceptingCall, type ServerInterceptor, status } from '@grpc/grpc-js';

/** Orchestrators check health without a token; the answer only says whether the service is up. */
const OPEN_SERVICE = '/grpc.health.v1.Health/';

/** Refuses calls without `authorization: Bearer <token>` as UNAUTHENTICATED. */
export function requireToken(token: string): ServerInterceptor {
  const expected = digest(`Bearer ${token}`);
  return (method, call) =>
    new ServerInterceptingCall(call, {
      start(next) {
        next({
          onReceiveMetadata(metadata, forward) {
            const given = metadata.get('authorization').at(-1);
            const allowed =
              method.path.startsWith(OPEN_SERVICE) ||
              (typeof given === 'string' && timingSafeEqual(digest(given), expected));
            if (allowed) forward(metadata);
            else call.sendStatus({ code: status.UNAUTHENTICATED, details: 'the shared token is missing or wrong' });
          },
        });
      },
    });
}

/** Equal lengths, as `timingSafeEqual` requires. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
