import { openAiError } from '../../common/openai-error.ts';
import { anthropicType } from '../errors.ts';
import type { StreamForm } from '../routes.ts';

/** Of an answer that is no JSON. */
const MAX_MESSAGE_CHARACTERS = 4096;

/**
 * An answer that is no stream as the last event of one: status 200 went out before it came. An error has the form that
 * clients of the API look for, its status as `code` where the API has one; what is not an error is the data of an event.
 */
export function lateAnswer(form: StreamForm, status: number, body: Buffer): string {
  const text = body.toString();
  const told = parse(text);
  const done = form === 'chat' ? 'data: [DONE]\n\n' : '';
  if (status < 300) return `data: ${told === undefined ? oneLine(text) : JSON.stringify(told)}\n\n${done}`;
  const inner = isObject(told?.['error']) ? told['error'] : told;
  const message = stringOf(inner, 'message') ?? (text.slice(0, MAX_MESSAGE_CHARACTERS) || `status ${status}`);
  const type = stringOf(inner, 'type') ?? 'upstream_error';
  const param = stringOf(inner, 'param') ?? null;
  switch (form) {
    case 'chat': {
      const error = inner !== told && told !== undefined ? told : openAiError(status, type, message, param);
      return `data: ${JSON.stringify(error)}\n\n${done}`;
    }
    case 'responses':
      return `event: error\ndata: ${JSON.stringify({ type: 'error', code: type, message, param })}\n\n`;
    case 'messages': {
      const error = { type: inner === told ? anthropicType(status) : type, message };
      return `event: error\ndata: ${JSON.stringify({ type: 'error', error })}\n\n`;
    }
  }
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function stringOf(from: Record<string, unknown> | undefined, name: string): string | undefined {
  const value = from?.[name];
  return typeof value === 'string' ? value : undefined;
}

function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, ' ');
}
