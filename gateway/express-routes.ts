import type { ServerResponse } from 'node:http';
import type { Express, NextFunction, Request, RequestHandler, Response } from 'express';
import {
  type Exchange,
  type Guard,
  type Guarded,
  type Handler,
  type OnError,
  type OpenExchange,
  run,
} from './request/exchange.ts';

/** Paths that Express matches, for handlers that know nothing of it. */
export interface ExpressRoutes {
  /** `ALL`: of the methods that the path has no handler for yet. */
  add(method: 'GET' | 'POST' | 'ALL', path: string, route: Guarded): void;
  /** What is on no path, and whatever was thrown. Nothing can be added afterwards. */
  end(notFound: Handler): void;
}

/** From here on every request of `app` is an exchange, and goes through `first`. */
export function expressRoutes(app: Express, open: OpenExchange, first: Guard, onError: OnError): ExpressRoutes {
  const opened = new WeakMap<ServerResponse, Exchange>();
  const exchangeOf = (request: Request, response: Response): Exchange => {
    const exchange = opened.get(response) ?? open(request, response, request.path);
    opened.set(response, exchange);
    return { ...exchange, params: paramsOf(request) };
  };
  const on =
    (route: Guarded): RequestHandler =>
    (request, response) =>
      run(exchangeOf(request, response), route, onError);

  app.use(function beginExchange(request, response, next) {
    if (first(exchangeOf(request, response)) === 'pass') next();
  });
  return {
    add(method, path, route) {
      if (method === 'GET') app.get(path, on(route));
      else if (method === 'POST') app.post(path, on(route));
      else app.all(path, on(route));
    },
    end(notFound) {
      app.use(on({ guards: [], handler: notFound }));
      // Express tells an error handler by its four parameters.
      app.use((thrown: unknown, request: Request, response: Response, _next: NextFunction) =>
        onError(exchangeOf(request, response), thrown),
      );
    },
  };
}

/** Of several segments Express gives a list. */
function paramsOf({ params }: Request): Record<string, string> {
  return Object.fromEntries(Object.entries(params).map(([name, value]) => [name, [value].flat().join('/')]));
}
