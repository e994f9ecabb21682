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
import { operationOf, PROVIDER } from './gen-ai.ts';
import { MAX_NAME_CHARACTERS } from './record.ts';
import type { RequestSpan, SpanEnd, Tracing } from './tracing.ts';

const FLUSH_MS = 2_000;

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

/** Those of models by OpenTelemetry's conventions for generative AI. */
function attributesOf({ route, status, outcome, model, backend, crystalKvId, tokens }: SpanEnd) {
  const operation = operationOf(route);
  return {
    'http.route': route,
    'http.response.status_code': status,
    'crystalkv.outcome': outcome,
    ...(model !== undefined && { 'gen_ai.request.model': model.slice(0, MAX_NAME_CHARACTERS) }),
    ...(operation !== undefined && { 'gen_ai.operation.name': operation, 'gen_ai.provider.name': PROVIDER }),
    ...(tokens.input > 0 && { 'gen_ai.usage.input_tokens': tokens.input }),
    ...(tokens.output > 0 && { 'gen_ai.usage.output_tokens': tokens.output }),
    ...(backend !== undefined && addressOf(backend)),
    ...(backend !== undefined && { 'crystalkv.backend': backend }),
    ...(crystalKvId !== undefined && { 'crystalkv.id': crystalKvId }),
  };
}

function addressOf(backend: string) {
  const { hostname, port, protocol } = new URL(backend);
  return { 'server.address': hostname, 'server.port': Number(port) || (protocol === 'https:' ? 443 : 80) };
}
