import type { Request, Response } from 'express';
import { ApiError } from './errors.ts';
import type { Serving } from './serving.ts';

/** Throws an `unknown_model` ApiError for another model's name. Without a name, the only model is meant. */
export function checkModel(serving: Pick<Serving, 'modelName'>, model: string | null | undefined): void {
  if (model === undefined || model === null || model === '' || model === serving.modelName) return;
  throw new ApiError('unknown_model', `The model \`${model}\` does not exist.`, 'model');
}

/** `GET /v1/models` and `GET /v1/models/{id}` */
export function createModelHandlers(serving: Serving) {
  const created = Math.floor(Date.now() / 1000);
  const card = {
    id: serving.modelName,
    object: 'model',
    created,
    owned_by: 'crystal-kv',
    root: serving.modelName,
    parent: null,
    max_model_len: serving.engine.info.maxModelLength,
    permission: [],
  };
  return {
    list: (_request: Request, response: Response) => {
      response.json({ object: 'list', data: [card] });
    },
    one: (request: Request, response: Response) => {
      checkModel(serving, `${request.params['id']}`);
      response.json(card);
    },
  };
}
