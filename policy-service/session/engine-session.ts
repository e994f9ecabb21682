import type { AttachRequest } from '../../proto/gen/crystalkv/v1/policy.ts';
import type { BadMessageReason } from '../observe/labels.ts';
import { type AttachedEngine, createAttachedEngine } from './attached-engine.ts';
import { negotiate } from './hello.ts';
import type { EngineSession, SessionDeps } from './session.ts';

/**
 * One Attach stream. `receive` takes whatever the engine sends: what makes no sense is counted and dropped, and the
 * stream goes on, because an engine that is half understood is better served than one that is cut off.
 */
export function createEngineSession(deps: SessionDeps) {
  const { metrics, logger } = deps;
  const bad = (reason: BadMessageReason) => metrics.badMessages.inc({ reason });
  let attached: AttachedEngine | undefined;
  let ended = false;

  const greet = (message: AttachRequest['message']) => {
    if (message?.$case !== 'hello') return bad('before_hello');
    const result = negotiate(message.value);
    if ('code' in result) {
      metrics.streams.inc({ outcome: 'refused' });
      logger.warn({ engine: message.value.engineId, reason: result.details }, 'engine refused');
      ended = true;
      return deps.refuse(result);
    }
    metrics.streams.inc({ outcome: 'accepted' });
    attached = createAttachedEngine(deps, result, () => {
      ended = true;
      attached?.close();
    });
    deps.onAttached(attached.session);
    deps.send({ message: { $case: 'welcome', value: { protocol: result.protocol } } });
    attached.configure();
  };

  return {
    receive({ message }: AttachRequest): void {
      if (ended) return;
      try {
        if (message === undefined) bad('undecodable');
        else if (attached === undefined) greet(message);
        else attached.receive(message);
      } catch (error) {
        bad('internal_error');
        logger.error({ err: error, kind: message?.$case }, 'cannot handle a message');
      }
    },
    /** The stream is over; returns what was attached. */
    close(): EngineSession | undefined {
      ended = true;
      attached?.close();
      return attached?.session;
    },
  };
}
