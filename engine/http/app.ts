import express, { type ErrorRequestHandler, type RequestHandler } from 'express';
import type { Registry } from 'prom-client';
import type { Logger } from '../../common/logger.ts';
import type { Engine } from '../types.ts';
import { createChatHandler } from './chat.ts';
import { createCompletionHandler } from './completions.ts';
import { ApiError } from './errors.ts';
import { createMetrics } from './metrics.ts';
import { createModelHandlers } from './models.ts';
import { adoptRequestId } from './request-id.ts';
import { createResponsesHandler } from './responses.ts';
import { GREEDY, type SamplingDefaults } from './sampling.ts';
import { Lifecycle, type Serving } from './serving.ts';
import { createTokenizeHandlers } from './tokenize.ts';
import type { ChatTokenizer } from './tokenizer.ts';

export interface EngineHttpOptions {
  engine: Engine;
  tokenizer: ChatTokenizer;
  /** The model's name in requests. */
  modelName: string;
  /** Returned by `/version`. */
  version: string;
  logger: Logger;
  defaults?: SamplingDefaults;
  /** Whether `usage` says how many prompt tokens were cached. */
  promptTokensDetails?: boolean;
  /** Largest request body, in bytes. */
  bodyLimit?: number;
}

export interface EngineHttp {
  /** For `listen` of `common/http.ts`. */
  readonly handler: express.Express;
  readonly registry: Registry;
  /** Refuses new requests with 503, and resolves when all running ones have been answered. */
  drain(): Promise<void>;
  /** Refuses new requests, ends running ones with an error, and resolves when that was sent, or after a second. */
  close(): Promise<void>;
}

const DEFAULT_BODY_LIMIT = 4 * 2 ** 20;

/** The OpenAI API of the engine, with vLLM's responses. */
export function createEngineHttp(options: EngineHttpOptions): EngineHttp {
  const { engine, modelName, logger } = options;
  const metrics = createMetrics(engine, modelName);
  const lifecycle = new Lifecycle();
  const serving: Serving = {
    engine,
    tokenizer: options.tokenizer,
    modelName,
    defaults: options.defaults ?? GREEDY,
    promptTokensDetails: options.promptTokensDetails ?? true,
    metrics,
    lifecycle,
  };
  engine.onFailure(() => lifecycle.failAll());

  const models = createModelHandlers(serving);
  const tokens = createTokenizeHandlers(serving);
  const health: RequestHandler = (_request, response) => {
    response.status(lifecycle.refusal === undefined ? 200 : 503).end();
  };
  const version: RequestHandler = (_request, response) => {
    response.json({ version: options.version });
  };
  const scrape: RequestHandler = async (_request, response) => {
    response.type(metrics.registry.contentType).send(await metrics.registry.metrics());
  };

  const routes: { path: string; get?: RequestHandler; post?: RequestHandler }[] = [
    { path: '/v1/chat/completions', post: createChatHandler(serving) },
    { path: '/v1/completions', post: createCompletionHandler(serving) },
    { path: '/v1/responses', post: createResponsesHandler(serving) },
    { path: '/v1/models', get: models.list },
    { path: '/v1/models/:id', get: models.one },
    { path: '/tokenize', post: tokens.tokenize },
    { path: '/detokenize', post: tokens.detokenize },
    { path: '/health', get: health },
    { path: '/ping', get: health, post: health },
    { path: '/version', get: version },
    { path: '/metrics', get: scrape },
  ];

  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.use(withRequestId);
  const readJson = express.json({ limit: options.bodyLimit ?? DEFAULT_BODY_LIMIT });
  for (const { path, get, post } of routes) {
    if (get !== undefined) app.get(path, get);
    if (post !== undefined) app.post(path, ...(post === health ? [post] : [requireJson, readJson, post]));
    app.all(path, otherMethods([get && 'GET, HEAD', post && 'POST'].filter(Boolean).join(', ')));
  }
  app.use(() => {
    throw new ApiError('no_route', 'Not Found');
  });
  app.use(sendError(logger));

  return {
    handler: app,
    registry: metrics.registry,
    drain: () => lifecycle.drain(),
    close: () => lifecycle.close(),
  };
}

const withRequestId: RequestHandler = (request, response, next) => {
  adoptRequestId(request, response);
  next();
};

const requireJson: RequestHandler = (request, _response, next) => {
  if (request.is('json') === false) {
    throw new ApiError('invalid', "Unsupported Media Type: Only 'application/json' is allowed");
  }
  next();
};

function otherMethods(allow: string): RequestHandler {
  return (request, response) => {
    response.set('allow', allow);
    if (request.method !== 'OPTIONS') throw new ApiError('method', 'Method Not Allowed');
    response.status(204).end();
  };
}

function sendError(logger: Logger): ErrorRequestHandler {
  return (thrown: unknown, _request, response, next) => {
    const error = ApiError.from(thrown);
    if (error.code === 'internal' && !(thrown instanceof ApiError)) {
      logger.error({ err: thrown, requestId: response.getHeader('x-request-id') }, 'a request failed');
    }
    if (response.headersSent) next(thrown);
    else response.status(error.status).json(error.body());
  };
}
