import type { RequestListener } from 'node:http';
import { type Guarded, type OnError, type OpenExchange, run } from './request/exchange.ts';
import type { Route } from './routes.ts';

/** Prompts and what is like them: short paths without parameters, on which everything depends. */
export const isHot = ({ method, path, body }: Route): boolean =>
  method === 'POST' && (body === 'generation' || body === 'option' || body === 'raw') && !path.includes(':');

/**
 * Answers POSTs to these very paths without Express, by the same handlers in the same order; everything else goes to
 * `app`. Matching and preparing a request in Express is a good part of what the gateway itself does for it (measured by
 * `npm run bench:gateway`).
 */
export function hotRoutes(
  app: RequestListener,
  routes: ReadonlyMap<string, Guarded>,
  open: OpenExchange,
  onError: OnError,
): RequestListener {
  return function answerHotRoute(request, response) {
    const path = request.url ?? '';
    const route = request.method === 'POST' ? routes.get(path) : undefined;
    if (route === undefined) app(request, response);
    else void run(open(request, response, path), route, onError);
  };
}
