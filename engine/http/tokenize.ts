import type { Request, Response } from 'express';
import { z } from 'zod';
import { templateFields, templateVariables } from './chat-messages.ts';
import { parseBody } from './errors.ts';
import { checkModel } from './models.ts';
import { checkTokenIds, encodePrompt } from './prompts.ts';
import { flag, integer } from './sampling-fields.ts';
import type { Serving } from './serving.ts';

const common = {
  model: z.string({ error: 'must be a string' }).nullish(),
  add_special_tokens: flag.nullish(),
  return_token_strs: flag.nullish(),
};
const tokenizePrompt = z.object({ ...common, prompt: z.string({ error: 'must be a string' }) });
const tokenizeChat = z.object({ ...common, ...templateFields });
const detokenize = z.object({
  model: z.string({ error: 'must be a string' }).nullish(),
  tokens: z.array(integer(0, Infinity), { error: 'must be a list of token ids' }),
});

/** `POST /tokenize`, of a prompt or of chat messages, and `POST /detokenize` */
export function createTokenizeHandlers(serving: Serving) {
  const { tokenizer, engine } = serving;

  const encodeBody = (body: unknown) => {
    if (typeof body === 'object' && body !== null && 'messages' in body) {
      const fields = parseBody(tokenizeChat, body);
      const encode = () => tokenizer.encodeChat(fields.messages, templateVariables(fields));
      return { fields, ids: encodePrompt('messages', encode) };
    }
    const fields = parseBody(tokenizePrompt, body);
    const encode = () => tokenizer.encode(fields.prompt, fields.add_special_tokens ?? true);
    return { fields, ids: encodePrompt('prompt', encode) };
  };

  return {
    tokenize: (request: Request, response: Response) => {
      const { fields, ids } = encodeBody(request.body);
      checkModel(serving, fields.model);
      response.json({
        count: ids.length,
        max_model_len: engine.info.maxModelLength,
        tokens: ids,
        token_strs: fields.return_token_strs === true ? ids.map(tokenizer.tokenText) : null,
      });
    },
    detokenize: (request: Request, response: Response) => {
      const { model, tokens } = parseBody(detokenize, request.body);
      checkModel(serving, model);
      checkTokenIds('tokens', tokens, engine.info);
      response.json({ prompt: tokenizer.decode(tokens, false) });
    },
  };
}
