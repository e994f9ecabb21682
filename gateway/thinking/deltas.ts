import type { StreamForm } from '../routes.ts';

/** What an event adds to the thinking of one choice. */
export interface ThinkingDelta {
  choice: number;
  text: string;
}

/** The JSON of an event, as far as it is looked at. */
export type EventJson = Readonly<Record<string, unknown>>;

/** Every event with thinking has one of these. */
export const THINKING_NEEDLES: Readonly<Record<StreamForm, readonly Buffer[]>> = {
  chat: [Buffer.from('"reasoning')],
  responses: [Buffer.from('response.reasoning')],
  messages: [Buffer.from('thinking_delta')],
};

/** What an event of a form adds to what its stream thinks. Text completions have no thinking apart from their text. */
export function thinkingOf(form: StreamForm, event: EventJson): ThinkingDelta[] {
  switch (form) {
    case 'chat':
      return listOf(event['choices']).flatMap((choice, place) => {
        const delta = objectOf(choice['delta']);
        const text = delta['reasoning'] ?? delta['reasoning_content'];
        if (typeof text !== 'string' || text === '') return [];
        return [{ choice: typeof choice['index'] === 'number' ? choice['index'] : place, text }];
      });
    case 'responses':
      return event['type'] === 'response.reasoning_text.delta' && typeof event['delta'] === 'string'
        ? [{ choice: 0, text: event['delta'] }]
        : [];
    case 'messages': {
      const { type, thinking } = objectOf(event['delta']);
      return type === 'thinking_delta' && typeof thinking === 'string' ? [{ choice: 0, text: thinking }] : [];
    }
  }
}

export function objectOf(value: unknown): EventJson {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as EventJson) : {};
}

export function listOf(value: unknown): EventJson[] {
  return Array.isArray(value) ? value.map(objectOf) : [];
}
