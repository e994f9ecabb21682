import {
  type Context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { within } from '../../common/time.ts';
import type { RequestSpan, SpanEnd, Tracing } from './tracing.ts';

const FLUSH_MS = 2_000;
/** A client may name any model. */
const MAX_NAME_CHARACTERS = 128;

/**
 * Starts OpenTelemetry's SDK, which reads its environment variables itself: exporter and protocol, headers, sampler,
 * batches, resource, propagators. Traces only: metrics are Prometheus' and logs are on standard output.
 */
export function startTracing(serviceName: string | undefined): Tracing {
  const sdk = new NodeSDK({
    ...(serviceName !== undefined && { serviceName }),
    metricReaders: [],
    logRecordProcessors: [],
    instrumentations: [],
  });
  sdk.start();
  const tracer = trace.getTracer('crystal-kv-gateway');

  return {
    begin(method, requestId, headers) {
      const parent = propagation.extract(ROOT_CONTEXT, headers);
      const attributes = { 'http.request.method': method, 'crystalkv.request_id': requestId };
      const span = tracer.startSpan(method, { kind: SpanKind.SERVER, attributes }, parent);
      return requestSpan(span, method, trace.setSpan(parent, span));
    },
    async close() {
      await within(
        sdk.shutdown().catch(() => {}),
        FLUSH_MS,
      );
    },
  };
}

function requestSpan(span: Span, method: string, context: Context): RequestSpan {
  const carrier: Record<string, string> = {};
  propagation.inject(context, carrier);
  const taken = Object.fromEntries(propagation.fields().map((name) => [name, undefined]));
  return {
    headers: { ...taken, ...carrier },
    end(end) {
      span.updateName(`${method} ${end.route}`);
      span.setAttributes(attributesOf(end));
      if (end.firstByteAt !== undefined) span.addEvent('first_byte', {}, end.firstByteAt);
      if (end.failed) span.setStatus({ code: SpanStatusCode.ERROR, message: end.outcome });
      span.end();
    },
  };
}

function attributesOf({ route, status, outcome, model, backend, crystalKvId }: SpanEnd) {
  return {
    'http.route': route,
    'http.response.status_code': status,
    'crystalkv.outcome': outcome,
    ...(model !== undefined && { 'gen_ai.request.model': model.slice(0, MAX_NAME_CHARACTERS) }),
    ...(backend !== undefined && { 'crystalkv.backend': backend }),
    ...(crystalKvId !== undefined && { 'crystalkv.id': crystalKvId }),
  };
}
