import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from '../../common/logger.ts';
import { isServersFault } from '../attempts/told-error.ts';
import type { ModelNames } from '../usage/model-names.ts';
import type { BackendSeries } from './backend-series.ts';
import type { GenAiMetrics } from './gen-ai.ts';
import type { Metrics } from './metrics.ts';
import type { Outcome } from './outcomes.ts';
import { MAX_NAME_CHARACTERS, type RequestRecord } from './record.ts';

export interface ReportDeps {
  metrics: Metrics;
  series: BackendSeries;
  names: ModelNames;
  logger: Logger;
  genAi: GenAiMetrics;
}

/** Nginx's number for a client that left before it had an answer. */
const CLIENT_CLOSED_REQUEST = 499;

/** Makes the function that tells metrics, trace and log of a request whose response has closed. */
export function createReport({ metrics, series, names, logger, genAi }: ReportDeps) {
  return function report(record: RequestRecord, request: IncomingMessage, response: ServerResponse): void {
    const { route, backend, startedAt, firstByteAt } = record;
    const status = response.headersSent ? response.statusCode : CLIENT_CLOSED_REQUEST;
    const outcome = outcomeOf(record, status);
    const ms = performance.now() - startedAt;
    metrics.requests.inc({ route, status: String(status), outcome });
    metrics.requestSeconds.observe({ route }, ms / 1000);
    if (backend !== undefined) series.ended(backend, names.label(record.model), outcome, ms / 1000);
    if (backend !== undefined && status < 400) {
      genAi.ended({
        ...{ route, model: names.label(record.model), tokens: record.tokens, seconds: ms / 1000 },
        firstSeconds: firstByteAt === undefined ? undefined : (firstByteAt - startedAt) / 1000,
      });
    }
    const failed = record.broken || outcome === 'server_error';
    record.span?.end({ ...record, status, outcome, failed });
    logger.info(
      {
        request_id: record.requestId,
        crystalkv_id: record.crystalKvId,
        key: record.key?.name,
        method: request.method,
        route,
        model: record.model?.slice(0, MAX_NAME_CHARACTERS),
        backend,
        status,
        outcome,
        duration_ms: Math.round(ms),
        input_tokens: record.tokens.input || undefined,
        output_tokens: record.tokens.output || undefined,
        first_byte_ms: firstByteAt === undefined ? undefined : Math.round(firstByteAt - startedAt),
      },
      'request',
    );
  };
}

function outcomeOf({ stop, broken, toldError }: RequestRecord, status: number): Outcome {
  if (stop.signal.reason === 'client_left') return 'client_abort';
  if (broken) return 'broken';
  if (toldError !== undefined) {
    if (!isServersFault(toldError)) return 'client_error';
    return toldError.first ? 'server_error' : 'broken';
  }
  if (status < 400) return 'ok';
  return status < 500 ? 'client_error' : 'server_error';
}
