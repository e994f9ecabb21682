import type { RequestListener } from 'node:http';
import type { ErrorRequestHandler, Express, Request, RequestHandler, Response } from 'express';
import type { Route } from './routes.ts';

/** Prompts and what is like them: short paths without parameters, on which everything depends. */
export const isHot = ({ method, path, body }: Route): boolean =>
  method === 'POST' && (body === 'generation' || body === 'option' || body === 'raw') && !path.includes(':');

/**
 * Answers POSTs to these very paths without Express, by the same handlers in the same order; everything else goes to
 * `app`. Matching and preparing a request in Express is a good part of what the gateway itself does for it (measured by
 * `npm run bench:gateway`). The handlers must do with Node's requests and responses, and `response.locals`.
 */
export function hotRoutes(
  app: Express,
  routes: ReadonlyMap<string, readonly RequestHandler[]>,
  onError: ErrorRequestHandler,
): RequestListener {
  return function answerHotRoute(plainRequest, plainResponse) {
    const handlers = plainRequest.method === 'POST' ? routes.get(plainRequest.url ?? '') : undefined;
    if (handlers === undefined) {
      app(plainRequest, plainResponse);
      return;
    }
    const request = plainRequest as Request;
    const response = plainResponse as Response;
    response.locals = {};
    const fail = (error: unknown) => onError(error, request, response, () => {});
    const run = (index: number): void => {
      const next = (error?: unknown) => (error === undefined ? run(index + 1) : fail(error));
      try {
        const running: unknown = handlers[index]?.(request, response, next);
        if (running instanceof Promise) running.catch(fail);
      } catch (error) {
        fail(error);
      }
    };
    run(0);
  };
}
