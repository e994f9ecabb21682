import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Metrics } from '../observe/metrics.ts';
import type { StopReason } from '../observe/outcomes.ts';
import { createRecord, type RequestRecord } from '../observe/record.ts';
import { createReport, type ReportDeps } from '../observe/report.ts';
import type { Tracing } from '../observe/tracing.ts';
import { tellLeavers } from '../response/half-closed.ts';
import type { Inflight } from './inflight.ts';

/** A request with its response, as Node gives them, and what is known of it. What Express adds is not there. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly record: RequestRecord;
  /** The path of the request, without its query. */
  readonly path: string;
  /** What the route names in its path, such as `id`. */
  readonly params: Readonly<Record<string, unknown>>;
}

/** Answers a request. Throws a GatewayError for an answer of that kind. */
export type Handler = (exchange: Exchange) => void | Promise<void>;

/** Goes before a handler; `answered`: nothing is left to do. Throws a GatewayError to refuse the request. */
export type Guard = (exchange: Exchange) => 'pass' | 'answered';

/** A handler with what goes before it. */
export interface Guarded {
  readonly guards: readonly Guard[];
  readonly handler: Handler;
}

/** Answers with whatever was thrown. */
export type OnError = (exchange: Exchange, thrown: unknown) => void;

/** Never rejects. */
export async function run(exchange: Exchange, { guards, handler }: Guarded, onError: OnError): Promise<void> {
  try {
    for (const guard of guards) if (guard(exchange) === 'answered') return;
    await handler(exchange);
  } catch (error) {
    onError(exchange, error);
  }
}

export interface ExchangeDeps extends ReportDeps {
  inflight: Inflight;
  metrics: Metrics;
  tracing: Tracing | undefined;
}

export type OpenExchange = (request: IncomingMessage, response: ServerResponse, path: string) => Exchange;

/**
 * Makes the function that begins an exchange. It ends with its response: a client that has left stops what runs for it,
 * and the end is reported.
 */
export function createExchanges(deps: ExchangeDeps): OpenExchange {
  const { inflight, metrics, tracing } = deps;
  const report = createReport(deps);
  return function openExchange(request, response, path) {
    const record = createRecord(request, tracing);
    inflight.add(record);
    tellLeavers(request, response);
    response.once('close', () => {
      if (!response.writableFinished && !record.broken && !record.stop.signal.aborted) {
        metrics.clientAborts.inc({ stage: record.stage });
        record.stop.abort('client_left' satisfies StopReason);
      }
      inflight.remove(record);
      // When all who count tokens have seen the end, too.
      queueMicrotask(() => report(record, request, response));
    });
    return { request, response, record, path, params: {} };
  };
}
