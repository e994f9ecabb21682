import type { IncomingHttpHeaders } from 'node:http';

/** What a span says of a request when it has ended. */
export interface SpanEnd {
  route: string;
  /** 499: the client left first. */
  status: number;
  outcome: string;
  failed: boolean;
  model: string | undefined;
  backend: string | undefined;
  crystalKvId: string | undefined;
  /** In `performance.now()`; undefined: none came. */
  firstByteAt: number | undefined;
}

/** The span of one request, from its head to the end of its response. */
export interface RequestSpan {
  /** For the backend in the place of the client's headers of these names; undefined: only taken away. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  end(end: SpanEnd): void;
}

/** Makes spans. They hold what the request's line in the log holds, and nothing of a body. */
export interface Tracing {
  begin(method: string, requestId: string, headers: IncomingHttpHeaders): RequestSpan;
  /** Sends what is left, for 2 s at most. Never rejects. */
  close(): Promise<void>;
}

/**
 * Tracing as OpenTelemetry's environment variables ask for it; undefined when they name no endpoint for traces, and then
 * its SDK is not loaded.
 */
export async function createTracing(env: Readonly<Record<string, string | undefined>>): Promise<Tracing | undefined> {
  const endpoint = env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] || env['OTEL_EXPORTER_OTLP_ENDPOINT'];
  if (!endpoint && !env['OTEL_TRACES_EXPORTER']) return undefined;
  if (env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true' || env['OTEL_TRACES_EXPORTER'] === 'none') return undefined;
  const named = env['OTEL_SERVICE_NAME'] || /(^|,)\s*service\.name=/.test(env['OTEL_RESOURCE_ATTRIBUTES'] ?? '');
  const { startTracing } = await import('./tracing-sdk.ts');
  return startTracing(named ? undefined : 'crystal-kv-gateway');
}
