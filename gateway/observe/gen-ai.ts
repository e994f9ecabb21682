import type { Registry } from 'prom-client';
import { registering } from './registering.ts';

/** What OpenTelemetry's conventions call the server behind the gateway. */
export const PROVIDER = 'vllm';

const OPERATIONS: Readonly<Record<string, string>> = {
  '/v1/chat/completions': 'chat',
  '/v1/messages': 'chat',
  '/v1/responses': 'chat',
  '/v1/completions': 'text_completion',
  '/v1/embeddings': 'embeddings',
};

/** What a route is for, in the words of the conventions; undefined: they have none. */
export function operationOf(route: string): string | undefined {
  return OPERATIONS[route];
}

// The buckets are those that the conventions advise.
const TOKENS = Array.from({ length: 14 }, (_, i) => 4 ** i);
const SECONDS = Array.from({ length: 14 }, (_, i) => 2 ** i / 100);
const FIRST_SECONDS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const LABELS = ['gen_ai_operation_name', 'gen_ai_provider_name', 'gen_ai_request_model'] as const;

/** A request that has ended. */
export interface Ended {
  route: string;
  /** A name that may be a label. */
  model: string;
  tokens: { input: number; output: number };
  seconds: number;
  /** Until its first byte; undefined: none came. */
  firstSeconds: number | undefined;
}

export interface GenAiMetrics {
  ended(request: Ended): void;
}

/** Metrics with the names that tools for any model server look for; the gateway's own say more. */
export function createGenAiMetrics(registry: Registry): GenAiMetrics {
  const { histogram } = registering(registry);
  const usage = histogram('gen_ai_client_token_usage', 'Tokens of a request: input or output', TOKENS, [
    ...LABELS,
    'gen_ai_token_type',
  ]);
  const duration = histogram(
    'gen_ai_server_request_duration_seconds',
    'Time from the request headers to the end of the response',
    SECONDS,
    LABELS,
  );
  const first = histogram(
    'gen_ai_server_time_to_first_token_seconds',
    'Time from the request headers to the first byte of the response',
    FIRST_SECONDS,
    LABELS,
  );
  return {
    ended({ route, model, tokens, seconds, firstSeconds }) {
      const operation = operationOf(route);
      if (operation === undefined) return;
      const labels = { gen_ai_operation_name: operation, gen_ai_provider_name: PROVIDER, gen_ai_request_model: model };
      duration.observe(labels, seconds);
      if (firstSeconds !== undefined) first.observe(labels, firstSeconds);
      for (const type of ['input', 'output'] as const) {
        if (tokens[type] > 0) usage.observe({ ...labels, gen_ai_token_type: type }, tokens[type]);
      }
    },
  };
}
