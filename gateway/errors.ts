import { type OpenAiErrorBody, openAiError } from '../common/openai-error.ts';
import type { StreamForm } from './routes.ts';

interface Row {
  status: number;
  message: string;
  /** What OpenAI's own API has as `code`; without it that is the status, as in vLLM. */
  name?: string;
}

/**
 * Every error that the gateway makes itself. In an answer the `type` is `gateway_` and the name of the row, so that it
 * can be told from an error of the backend, which is passed on as it is.
 */
const TABLE = {
  malformed_http: { status: 400, message: 'the request is not valid HTTP/1.1' },
  malformed_url: { status: 400, message: 'the URL is not valid' },
  malformed_json: { status: 400, message: 'the body is not a JSON object' },
  malformed_form: { status: 400, message: 'the form is not valid' },
  invalid_option: { status: 400, message: 'an option has an invalid value' },
  invalid_api_key: { status: 401, message: 'the API key is not valid', name: 'invalid_api_key' },
  not_local: { status: 403, message: 'without API keys the gateway serves programs on this machine only' },
  model_not_allowed: { status: 403, message: 'this API key may not use that model', name: 'model_not_allowed' },
  not_found: { status: 404, message: 'the gateway does not serve this path' },
  model_not_found: { status: 404, message: 'no backend serves this model' },
  response_not_found: { status: 404, message: 'no backend has this response' },
  method_not_allowed: { status: 405, message: 'this path does not accept this method' },
  request_timeout: { status: 408, message: 'the request did not arrive in time' },
  body_too_large: { status: 413, message: 'the body is too large' },
  unsupported_encoding: { status: 415, message: 'the body must not have a content encoding' },
  rate_limited: { status: 429, message: 'this API key has reached a limit', name: 'rate_limit_exceeded' },
  quota_used: { status: 429, message: 'this API key has used up its daily tokens', name: 'insufficient_quota' },
  queue_full: { status: 429, message: 'too many requests are waiting for a backend' },
  headers_too_large: { status: 431, message: 'the headers are larger than 16 KiB in total' },
  internal: { status: 500, message: 'the gateway failed; its log names the request id' },
  upstream_unreachable: { status: 502, message: 'no backend could be reached' },
  upstream_broken: { status: 502, message: 'the backend closed the connection before its response was complete' },
  no_backend: { status: 503, message: 'no backend is available' },
  bodies_full: { status: 503, message: 'the gateway holds as much of request bodies as it may' },
  overloaded: { status: 503, message: 'the gateway is overloaded' },
  queue_timeout: { status: 503, message: 'no backend became available in time' },
  draining: { status: 503, message: 'the gateway is shutting down' },
  limits_unavailable: { status: 503, message: 'rate limits cannot be checked right now' },
  responses_unavailable: { status: 503, message: 'the owner of this response cannot be determined right now' },
  too_many_viewers: { status: 503, message: 'too many open live pages' },
  upstream_timeout: { status: 504, message: 'the backend took too long to respond' },
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof TABLE;

/** The error body of Anthropic's API, which vLLM sends there too. */
export interface AnthropicErrorBody {
  type: 'error';
  error: { type: string; message: string };
}

/** By status; all others are `api_error`. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  405: 'invalid_request_error',
  408: 'timeout_error',
  413: 'request_too_large',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
};

export function anthropicType(status: number): string {
  return ANTHROPIC_TYPES[status] ?? 'api_error';
}

/** Every status of an error of the gateway's own, with the messages of its rows. */
export function errorStatuses(): Map<number, string[]> {
  const statuses = new Map<number, string[]>();
  for (const { status, message } of Object.values(TABLE)) {
    statuses.set(status, [...(statuses.get(status) ?? []), message]);
  }
  return new Map([...statuses].sort(([a], [b]) => a - b));
}

interface Details {
  /** Instead of the row's own text. */
  message?: string;
  /** Instead of the row's own, where clients know the error by the type that vLLM gives it. */
  type?: string;
  /** The request field that is wrong. */
  param?: string;
  headers?: Readonly<Record<string, string>>;
  cause?: unknown;
}

/** An error with an answer: a row of the table. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';
  readonly code: ErrorCode;
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: ErrorCode, details: Details = {}) {
    super(details.message ?? TABLE[code].message, { cause: details.cause });
    this.code = code;
    this.status = TABLE[code].status;
    this.type = details.type ?? `gateway_${code}`;
    this.param = details.param ?? null;
    this.headers = details.headers ?? {};
  }

  /** The row for whatever was thrown; an error that nobody foresaw says nothing about itself to the client. */
  static from(thrown: unknown): GatewayError {
    if (thrown instanceof GatewayError) return thrown;
    // What Express throws for an escape such as %zz in the path.
    if (thrown instanceof URIError) return new GatewayError('malformed_url', { cause: thrown });
    return new GatewayError('internal', { cause: thrown });
  }

  /** As the API has it: that of messages is Anthropic's, and its clients know no other. */
  bodyFor(form: StreamForm): OpenAiErrorBody | AnthropicErrorBody {
    return form === 'messages' ? { type: 'error', error: this.anthropic() } : this.body();
  }

  anthropic(): AnthropicErrorBody['error'] {
    return { type: anthropicType(this.status), message: this.message };
  }

  body(): OpenAiErrorBody {
    const { status, name }: Row = TABLE[this.code];
    return openAiError(status, this.type, this.message, this.param, name ?? status);
  }
}

/** As vLLM says it. */
export function modelNotFound(model: string): GatewayError {
  return new GatewayError('model_not_found', {
    type: 'NotFoundError',
    message: `The model \`${model}\` does not exist.`,
    param: 'model',
  });
}
