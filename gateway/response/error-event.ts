import type { GatewayError } from '../errors.ts';
import type { StreamForm } from '../routes.ts';

/**
 * An error as the last event of a stream, in the form that the API's clients look for. For chat and text completions
 * as vLLM sends it, `[DONE]` included; the other two APIs end with their `error` event (without the
 * `sequence_number` of the responses API: counting would mean to parse every event).
 */
export function errorEvent(form: StreamForm, error: GatewayError): string {
  switch (form) {
    case 'chat':
      return `data: ${JSON.stringify(error.body())}\n\ndata: [DONE]\n\n`;
    case 'responses': {
      const { type, message, param } = error;
      return `event: error\ndata: ${JSON.stringify({ type: 'error', code: type, message, param })}\n\n`;
    }
    case 'messages':
      return `event: error\ndata: ${JSON.stringify(error.bodyFor(form))}\n\n`;
  }
}
