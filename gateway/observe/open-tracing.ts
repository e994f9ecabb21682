import type { Tracing } from './tracing.ts';

/**
 * Tracing as OpenTelemetry's environment variables ask for it; undefined when they name no endpoint for traces, and then
 * its SDK is not loaded.
 */
export async function openTracing(env: Readonly<Record<string, string | undefined>>): Promise<Tracing | undefined> {
  const endpoint = env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] || env['OTEL_EXPORTER_OTLP_ENDPOINT'];
  if (!endpoint && !env['OTEL_TRACES_EXPORTER']) return undefined;
  if (env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true' || env['OTEL_TRACES_EXPORTER'] === 'none') return undefined;
  const named = env['OTEL_SERVICE_NAME'] || /(^|,)\s*service\.name=/.test(env['OTEL_RESOURCE_ATTRIBUTES'] ?? '');
  const { startTracing } = await import('./tracing-sdk.ts');
  return startTracing(named ? undefined : 'crystal-kv-gateway');
}
