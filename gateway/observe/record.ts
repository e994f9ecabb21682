import type { RequestHandler, Response } from 'express';
import type { Logger } from '../../common/logger.ts';
import type { KeyEntry } from '../keys/entry.ts';
import type { Inflight } from '../request/inflight.ts';
import type { ModelNames } from '../usage/model-names.ts';
import type { BackendSeries } from './backend-series.ts';
import { requestId } from './ids.ts';
import type { Metrics } from './metrics.ts';
import { type AbortStage, OTHER_ROUTE, type Outcome, type StopReason } from './outcomes.ts';
import type { RequestSpan, Tracing } from './tracing.ts';

/** Nginx's number for a client that left before it had an answer. */
const CLIENT_CLOSED_REQUEST = 499;

/** What is known of a request while it runs. No header, path or body of the client's, except a plain request id. */
export interface RequestRecord {
  readonly requestId: string;
  readonly stop: AbortController;
  crystalKvId: string | undefined;
  /** Undefined: no traces are made. */
  readonly span: RequestSpan | undefined;
  route: string;
  /** The model that the client named. */
  model: string | undefined;
  /** Whose request it is; undefined while nobody is asked for a key. */
  key: KeyEntry | undefined;
  /** Those with a higher number leave a queue first; 0 unless a key says otherwise. */
  priority: number;
  backend: string | undefined;
  stage: AbortStage;
  broken: boolean;
  startedAt: number;
  /** When its body was there, and it began to be worked on; undefined before, and once a backend was asked. */
  receivedAt: number | undefined;
  firstByteAt: number | undefined;
  /** What the response says it took so far, or what is estimated where it does not. */
  readonly tokens: { input: number; output: number };
  /** Headers of the answer beside the ids, names and values in turn. */
  readonly answerHeaders: string[];
}

const KEY = 'record';

export function recordOf(response: Response): RequestRecord {
  return response.locals[KEY] as RequestRecord;
}

/** The gateway's headers of every answer, names and values in turn. */
export function ownHeaders(record: RequestRecord): string[] {
  const headers = ['x-request-id', record.requestId];
  if (record.crystalKvId !== undefined) headers.push('x-crystalkv-id', record.crystalKvId);
  headers.push(...record.answerHeaders);
  return headers;
}

export interface RecordDeps {
  inflight: Inflight;
  metrics: Metrics;
  series: BackendSeries;
  names: ModelNames;
  logger: Logger;
  tracing: Tracing | undefined;
}

/** Opens a record for each request and closes it with its response: in-flight set, metrics, one line in the log. */
export function keepRecords(deps: RecordDeps): RequestHandler {
  const { inflight, metrics, series, names, logger, tracing } = deps;
  return function keepRecord(request, response, next) {
    const id = requestId(request.headers['x-request-id']);
    const record: RequestRecord = {
      requestId: id,
      span: tracing?.begin(request.method, id, request.headers),
      stop: new AbortController(),
      crystalKvId: undefined,
      route: OTHER_ROUTE,
      model: undefined,
      key: undefined,
      priority: 0,
      backend: undefined,
      stage: 'upload',
      broken: false,
      startedAt: performance.now(),
      receivedAt: undefined,
      firstByteAt: undefined,
      tokens: { input: 0, output: 0 },
      answerHeaders: [],
    };
    response.locals[KEY] = record;
    inflight.add(record);
    response.once('close', () => {
      const left = !response.writableFinished && !record.stop.signal.aborted && !record.broken;
      if (left) {
        metrics.clientAborts.inc({ stage: record.stage });
        record.stop.abort('client_left' satisfies StopReason);
      }
      inflight.remove(record);
      const status = response.headersSent ? response.statusCode : CLIENT_CLOSED_REQUEST;
      const outcome = outcomeOf(record, status, left);
      const seconds = (performance.now() - record.startedAt) / 1000;
      metrics.requests.inc({ route: record.route, status: String(status), outcome });
      metrics.requestSeconds.observe({ route: record.route }, seconds);
      if (record.backend !== undefined) series.ended(record.backend, names.label(record.model), outcome, seconds);
      const failed = record.broken || status >= 500;
      record.span?.end({ ...record, status, outcome, failed });
      logger.info(
        {
          request_id: record.requestId,
          crystalkv_id: record.crystalKvId,
          key: record.key?.name,
          method: request.method,
          route: record.route,
          backend: record.backend,
          status,
          outcome,
          duration_ms: Math.round(seconds * 1000),
          first_byte_ms:
            record.firstByteAt === undefined ? undefined : Math.round(record.firstByteAt - record.startedAt),
        },
        'request',
      );
    });
    next();
  };
}

function outcomeOf(record: RequestRecord, status: number, left: boolean): Outcome {
  if (left) return 'client_abort';
  if (record.broken) return 'broken';
  if (status < 400) return 'ok';
  return status < 500 ? 'client_error' : 'server_error';
}
