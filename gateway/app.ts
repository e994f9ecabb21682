import type { IncomingMessage, RequestListener } from 'node:http';
import express, { type RequestHandler } from 'express';
import { GatewayError } from './errors.ts';
import { expressRoutes } from './express-routes.ts';
import type { Fleet } from './fleet/fleet.ts';
import { listModels } from './fleet/list-models.ts';
import { ready } from './fleet/ready.ts';
import { type ForwardDeps, forward } from './forward.ts';
import { hotRoutes, isHot } from './hot-routes.ts';
import { authenticate, mayRead, refuseKey } from './keys/authenticate.ts';
import type { Keyring } from './keys/keyring.ts';
import { MODEL_PATH } from './request/content.ts';
import { createExchanges, type ExchangeDeps, type Guarded } from './request/exchange.ts';
import { answerErrors, answerNotFound, otherMethods } from './response/answers.ts';
import { type CorsConfig, cors } from './response/cors.ts';
import { allowed, ROUTES } from './routes.ts';
import type { Ui } from './ui/ui.ts';

export interface AppDeps extends ForwardDeps, ExchangeDeps {
  fleet: Fleet;
  cors: CorsConfig;
  /** Undefined: nobody is asked for a key. */
  keyring: Keyring | undefined;
  /** Whether a request is from a program on this machine; undefined: all are served. */
  isLocal: ((request: IncomingMessage) => boolean) | undefined;
  /** The gateway described, for `/openapi.json`. */
  openApi(): Readonly<Record<string, unknown>>;
  /** Answers `/metrics`; undefined when it has a listener of its own. */
  metricsHandler: RequestHandler | undefined;
  /** The live page; undefined when it is not served. */
  ui: Ui | undefined;
}

/** Table of contents: the gateway's own paths, the paths that are passed on, and nothing else. */
export function createApp(deps: AppDeps): RequestListener {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  app.enable('case sensitive routing').enable('strict routing').set('query parser', false);

  app.get('/health', (_request, response) => void response.json({ status: 'ok' }));
  app.get('/openapi.json', (_request, response) => void response.json(deps.openApi()));
  app.get('/ready', ready(deps.fleet, deps.inflight));
  const { keyring, metricsHandler } = deps;
  if (metricsHandler !== undefined) app.get('/metrics', mayRead(keyring), metricsHandler);
  deps.ui?.mountPage(app);

  const open = createExchanges(deps);
  const onError = answerErrors(deps.logger);
  const addCors = cors(deps.cors);
  const routes = expressRoutes(app, open, addCors, onError);
  if (metricsHandler !== undefined) routes.add('GET', '/metrics', { guards: [], handler: refuseKey('/metrics') });
  const hot = new Map<string, Guarded>();
  for (const route of ROUTES) {
    const { method, path } = route;
    const single = forward(route, deps);
    const handler = path === '/v1/models' ? listModels(single, deps) : single;
    const guards = [authenticate(path, keyring)];
    // Names of models have slashes, which not every client encodes.
    routes.add(method, path === MODEL_PATH ? path.replace(':', '*') : path, { guards, handler });
    if (isHot(route)) hot.set(path, { guards: [addCors, ...guards], handler });
  }
  deps.ui?.mountApi(routes, (path) => authenticate(path, keyring));
  const own = ['/health', '/ready', '/openapi.json', ...(metricsHandler === undefined ? [] : ['/metrics'])];
  for (const path of new Set([...ROUTES.map((route) => route.path), ...own])) {
    routes.add('ALL', path, { guards: [], handler: otherMethods(path, allowed(path)) });
  }
  routes.end(answerNotFound);
  const serve = hotRoutes(app, hot, open, onError);
  const { isLocal } = deps;
  if (isLocal === undefined) return serve;
  return function serveLocal(request, response) {
    if (isLocal(request)) serve(request, response);
    else onError(open(request, response, request.url ?? ''), new GatewayError('not_local'));
  };
}
