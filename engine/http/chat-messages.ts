import { z } from 'zod';
import type { ChatMessage } from './tokenizer.ts';

const textPart = z.object(
  {
    type: z.enum(['text', 'input_text'], { error: 'must be "text": this model reads text only' }),
    text: z.string({ error: 'must be a string' }),
  },
  { error: 'must be a text part, {"type": "text", "text": "..."}' },
);

const message = z
  .object(
    {
      role: z.string({ error: 'must be a string such as "user", "assistant" or "system"' }),
      content: z.unknown().optional(),
    },
    { error: 'must be an object with role and content' },
  )
  .transform(({ role, content }, context): ChatMessage => {
    if (typeof content === 'string') return { role, content };
    // An assistant message that only called tools has no content.
    if (content === null || content === undefined) return { role, content: '' };
    if (!Array.isArray(content)) {
      const error = 'must be a string or a list of text parts';
      context.issues.push({ code: 'custom', input: content, path: ['content'], message: error });
      return z.NEVER;
    }
    const parts = z.array(textPart).safeParse(content);
    if (parts.success) return { role, content: parts.data.map((part) => part.text).join('\n') };
    for (const issue of parts.error.issues) {
      context.issues.push({ code: 'custom', input: content, path: ['content', ...issue.path], message: issue.message });
    }
    return z.NEVER;
  });

/** The messages of a chat; text parts are joined by line breaks, as vLLM does. */
export const chatMessages = z
  .array(message, { error: 'must be a list of messages' })
  .min(1, { error: 'must hold at least 1 message' });

/** Fields that go into the chat template. */
export const templateFields = {
  messages: chatMessages,
  add_generation_prompt: z.boolean({ error: 'must be true or false' }).nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown(), { error: 'must be an object' }).nullish(),
};

const shape = z.object(templateFields);

/** The variables of the template, apart from the messages. */
export function templateVariables(fields: z.output<typeof shape>): Record<string, unknown> {
  return { ...fields.chat_template_kwargs, add_generation_prompt: fields.add_generation_prompt ?? true };
}
