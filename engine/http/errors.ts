import { z } from 'zod';
import { type OpenAiErrorBody, openAiError } from '../../common/openai-error.ts';

/** Every error of this API, with its status and vLLM's `type`. */
const TABLE = {
  invalid: { status: 400, type: 'BadRequestError' },
  unknown_model: { status: 404, type: 'NotFoundError' },
  no_route: { status: 404, type: 'Not Found' },
  method: { status: 405, type: 'Method Not Allowed' },
  too_large: { status: 413, type: 'Request Entity Too Large' },
  internal: { status: 500, type: 'InternalServerError' },
  unavailable: { status: 503, type: 'ServiceUnavailableError' },
} as const;
export type ErrorCode = keyof typeof TABLE;

/** A failure as the client sees it. `param` names the request field that is wrong. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly code: ErrorCode;
  readonly status: number;
  readonly param: string | null;

  constructor(code: ErrorCode, message: string, param: string | null = null) {
    super(message);
    this.code = code;
    this.status = TABLE[code].status;
    this.param = param;
  }

  /** What was thrown, as the client may see it. The cause of an internal error stays inside. */
  static from(thrown: unknown): ApiError {
    if (thrown instanceof ApiError) return thrown;
    const { status, type, message } = thrown as { status?: unknown; type?: unknown; message?: unknown };
    // What the body parser throws has a status; its messages speak only of the body.
    if (status === 413) return new ApiError('too_large', `The request body is too large: ${message}.`);
    if (type === 'entity.parse.failed') return new ApiError('invalid', `The body is not valid JSON: ${message}.`);
    if (typeof status === 'number' && status >= 400 && status < 500) return new ApiError('invalid', `${message}`);
    return new ApiError('internal', 'Internal server error.');
  }

  body(): OpenAiErrorBody {
    return openAiError(this.status, TABLE[this.code].type, this.message, this.param);
  }
}

const MAX_PROBLEMS = 5;
const MAX_VALUE_LENGTH = 80;

/** Parses a body. Throws an `invalid` ApiError whose message names fields, values and bounds. */
export function parseBody<S extends z.ZodType>(schema: S, body: unknown): z.output<S> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const { issues } = result.error;
  const lines = issues.slice(0, MAX_PROBLEMS).map((issue) => {
    const value = issue.path.reduce<unknown>((node, key) => (node as Record<PropertyKey, unknown>)?.[key], body);
    return `${z.core.toDotPath(issue.path) || 'body'} is ${show(value)}: ${issue.message}`;
  });
  if (issues.length > MAX_PROBLEMS) lines.push(`and ${issues.length - MAX_PROBLEMS} more`);
  throw new ApiError('invalid', lines.join('; '), z.core.toDotPath(issues[0]?.path ?? []) || null);
}

/** A value for an error message, at most 80 characters of it. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > MAX_VALUE_LENGTH ? `${text.slice(0, MAX_VALUE_LENGTH)}...` : text;
}
