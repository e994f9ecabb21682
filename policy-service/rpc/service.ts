import { type ServerDuplexStream, type ServerWritableStream, type sendUnaryData, status } from '@grpc/grpc-js';
import type {
  AttachRequest,
  AttachResponse,
  KvPolicyServer,
  RequestState as RequestMessage,
  WatchRequest,
  WatchResponse,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import type { Settings } from '../config.ts';
import { POLICIES } from '../policies/registry.ts';
import type { RequestState } from '../request/request-state.ts';
import type { Engines, FinishedListener } from '../session/engines.ts';
import type { Refusal } from '../session/hello.ts';
import { createEndedRequests } from './ended-requests.ts';
import { engineMessage, profileMessage, requestMessage } from './messages.ts';

/** The most ended requests that one message of a Watch reports; more are left out. */
const MAX_ENDED = 256;
/** The most requests of one page, and blocks after which it ends: describing a block takes about a microsecond. */
const MAX_PAGE = 256;
const MAX_PAGE_BLOCKS = 65_536;
/** Milliseconds between two messages of a Watch. */
export const WATCH_INTERVAL = { min: 50, max: 10_000, fallback: 250 } as const;

/** The RPCs of `KvPolicy`. `close` ends what is still streaming. */
export function createService({ engines, settings }: { engines: Engines; settings: { current: Settings } }) {
  const watchers = new Set<() => void>();
  const ended = createEndedRequests();
  const keepEnded: FinishedListener = (engineId, request) => {
    if (request.start.crystalkvId !== '') ended.add(requestMessage(engineId, request));
  };
  engines.finishedListeners.add(keepEnded);

  function* states(
    matches: (engineId: string, crystalkvId: string) => boolean,
    held = false,
  ): Generator<RequestMessage> {
    for (const [engineId, { requests }] of engines.attached) {
      for (const request of requests.values()) {
        if (matches(engineId, request.start.crystalkvId)) yield requestMessage(engineId, request, held);
      }
    }
  }

  /** Requests by engine and handle, those that come after a place. */
  function* inOrder(
    matches: (engineId: string) => boolean,
    after: Place | undefined,
  ): Generator<[string, RequestState]> {
    for (const engineId of [...engines.attached.keys()].filter(matches).sort()) {
      if (after !== undefined && engineId < after.engineId) continue;
      const requests = [...(engines.attached.get(engineId)?.requests.values() ?? [])];
      for (const request of requests.sort((a, b) => a.handle - b.handle)) {
        if (after?.engineId === engineId && request.handle <= after.handle) continue;
        yield [engineId, request];
      }
    }
  }

  const handlers = {
    attach(call: ServerDuplexStream<AttachRequest, AttachResponse>) {
      const session = engines.open({
        send: (message) => call.write(message),
        isBlocked: () => call.writableNeedDrain,
        refuse: (refusal) => fail(call, refusal),
      });
      call.on('data', session.receive);
      call.on('end', () => {
        session.close();
        call.end();
      });
      call.on('error', session.close);
      call.on('cancelled', session.close);
      call.on('close', session.close);
    },

    getRequest({ request: { crystalkvId, choiceIndex } }, callback) {
      if (crystalkvId === '') return refuse(callback, status.INVALID_ARGUMENT, 'crystalkv_id is empty');
      let found: RequestMessage | undefined;
      for (const state of states((_engine, id) => id === crystalkvId))
        if (state.choiceIndex === choiceIndex) found = state;
      found ??= ended.get(crystalkvId, choiceIndex);
      if (found !== undefined) return callback(null, { request: found });
      const wanted = `request ${JSON.stringify(crystalkvId.slice(0, 128))}, choice ${choiceIndex}`;
      return refuse(callback, status.NOT_FOUND, `${wanted} is unknown, or ended too long ago`);
    },

    listRequests({ request: { engineId, pageSize, pageToken } }, callback) {
      if (engineId !== '' && !engines.attached.has(engineId)) {
        return refuse(callback, status.NOT_FOUND, `engine ${JSON.stringify(engineId.slice(0, 128))} is not attached`);
      }
      const after = pageToken === '' ? undefined : readPageToken(pageToken);
      if (pageToken !== '' && after === undefined) {
        return refuse(callback, status.INVALID_ARGUMENT, 'page_token is not one that this service gave');
      }
      if (pageSize > MAX_PAGE) {
        return refuse(callback, status.INVALID_ARGUMENT, `page_size is ${pageSize}; allowed: 1 to ${MAX_PAGE}, or 0`);
      }
      const requests: RequestMessage[] = [];
      let blocks = 0;
      for (const [id, request] of inOrder((engine) => engineId === '' || engine === engineId, after)) {
        if (requests.length === (pageSize || MAX_PAGE) || (requests.length > 0 && blocks >= MAX_PAGE_BLOCKS)) {
          const last = requests.at(-1) as RequestMessage;
          return callback(null, { requests, nextPageToken: pageTokenOf(last) });
        }
        blocks += request.table.blocks;
        requests.push(requestMessage(id, request));
      }
      callback(null, { requests, nextPageToken: '' });
    },

    watch(call: ServerWritableStream<WatchRequest, WatchResponse>) {
      const { intervalMs, crystalkvId, held = false } = call.request;
      const interval = intervalMs === 0 ? WATCH_INTERVAL.fallback : intervalMs;
      if (interval < WATCH_INTERVAL.min || interval > WATCH_INTERVAL.max) {
        const bounds = `${WATCH_INTERVAL.min} to ${WATCH_INTERVAL.max}`;
        return fail(call, {
          code: status.INVALID_ARGUMENT,
          details: `interval_ms is ${intervalMs}; allowed: ${bounds}, or 0 for ${WATCH_INTERVAL.fallback}`,
        });
      }
      const matches = (id: string) => crystalkvId === '' || id === crystalkvId;
      let ended: RequestMessage[] = [];
      const onFinished: FinishedListener = (engineId, request) => {
        if (!matches(request.start.crystalkvId) || ended.length >= MAX_ENDED) return;
        ended.push({ ...requestMessage(engineId, request, held), ended: true });
      };
      const stopHeld = held ? engines.watchHeld() : () => {};
      engines.finishedListeners.add(onFinished);
      const tell = () => {
        if (call.writableNeedDrain) return;
        call.write({
          engines: [...engines.attached.values()].map(engineMessage),
          requests: [...states((_engine, id) => matches(id), held), ...ended],
        });
        ended = [];
      };
      const timer = setInterval(tell, interval);
      const stop = () => {
        clearInterval(timer);
        stopHeld();
        engines.finishedListeners.delete(onFinished);
        watchers.delete(finish);
      };
      const finish = () => {
        stop();
        call.end();
      };
      watchers.add(finish);
      call.on('cancelled', stop);
      call.on('error', stop);
      call.on('close', stop);
      tell();
    },

    getEngines(_call, callback) {
      callback(null, { engines: [...engines.attached.values()].map(engineMessage) });
    },

    listPolicies(_call, callback) {
      const policies = Object.entries(POLICIES).map(([name, { summary, source }]) => ({ name, summary, source }));
      callback(null, { policies });
    },

    listProfiles(_call, callback) {
      const { profiles, defaultProfile } = settings.current;
      callback(null, {
        profiles: [...profiles.values()].map((profile) => profileMessage(profile, profile === defaultProfile)),
      });
    },
  } satisfies KvPolicyServer;

  return {
    handlers,
    close() {
      engines.finishedListeners.delete(keepEnded);
      for (const finish of watchers) finish();
    },
  };
}

/** Where a page ended. */
interface Place {
  engineId: string;
  handle: number;
}

function pageTokenOf({ engineId, handle }: Place): string {
  return `${handle} ${engineId}`;
}

function readPageToken(token: string): Place | undefined {
  const [, handle, engineId] = /^(\d{1,10}) (.{1,128})$/s.exec(token) ?? [];
  return handle === undefined || engineId === undefined ? undefined : { engineId, handle: Number(handle) };
}

/** Ends a stream with an error; grpc-js takes it from the `error` event. */
function fail(call: { emit(event: 'error', error: Refusal): boolean }, refusal: Refusal): void {
  call.emit('error', refusal);
}

function refuse(callback: sendUnaryData<never>, code: status, details: string): void {
  callback({ code, details });
}
