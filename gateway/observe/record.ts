import type { IncomingMessage } from 'node:http';
import type { ToldError } from '../attempts/told-error.ts';
import type { KeyEntry } from '../keys/entry.ts';
import { requestId } from './ids.ts';
import { type AbortStage, OTHER_ROUTE } from './outcomes.ts';
import type { RequestSpan, Tracing } from './tracing.ts';

/** A client may name any model. */
export const MAX_NAME_CHARACTERS = 128;

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
  /** Its stream told an error as an event. */
  toldError: ToldError | undefined;
  startedAt: number;
  /** When its body was there, and it began to be worked on; undefined before, and once a backend was asked. */
  receivedAt: number | undefined;
  firstByteAt: number | undefined;
  /** What the response says it took so far, or what is estimated where it does not. */
  readonly tokens: { input: number; output: number };
  /** Headers of the answer beside the ids, names and values in turn. */
  readonly answerHeaders: string[];
}

/** Of a request whose head has come. */
export function createRecord(request: IncomingMessage, tracing: Tracing | undefined): RequestRecord {
  const id = requestId(request.headers['x-request-id']);
  return {
    requestId: id,
    span: tracing?.begin(request.method ?? '', id, request.headers),
    stop: new AbortController(),
    crystalKvId: undefined,
    route: OTHER_ROUTE,
    model: undefined,
    key: undefined,
    priority: 0,
    backend: undefined,
    stage: 'upload',
    broken: false,
    toldError: undefined,
    startedAt: performance.now(),
    receivedAt: undefined,
    firstByteAt: undefined,
    tokens: { input: 0, output: 0 },
    answerHeaders: [],
  };
}

/** The gateway's headers of every answer, names and values in turn. */
export function ownHeaders(record: RequestRecord): string[] {
  const headers = ['x-request-id', record.requestId];
  if (record.crystalKvId !== undefined) headers.push('x-crystalkv-id', record.crystalKvId);
  headers.push(...record.answerHeaders);
  return headers;
}
