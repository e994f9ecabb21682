import type { RequestListener } from 'node:http';
import express, { type RequestHandler } from 'express';
import type { Fleet } from './fleet/fleet.ts';
import { listModels } from './fleet/list-models.ts';
import { ready } from './fleet/ready.ts';
import { type ForwardDeps, forward } from './forward.ts';
import { hotRoutes, isHot } from './hot-routes.ts';
import { authenticate, mayRead, refuseKey } from './keys/authenticate.ts';
import type { Keyring } from './keys/keyring.ts';
import { keepRecords, type RecordDeps } from './observe/record.ts';
import { answerErrors, notFound, otherMethods } from './response/answers.ts';
import { type CorsConfig, cors } from './response/cors.ts';
import { allowed, ROUTES } from './routes.ts';
import type { Ui } from './ui/ui.ts';

export interface AppDeps extends ForwardDeps, RecordDeps {
  fleet: Fleet;
  cors: CorsConfig;
  /** Undefined: nobody is asked for a key. */
  keyring: Keyring | undefined;
  /** The gateway described, for `/openapi.json`. */
  openApi: Readonly<Record<string, unknown>>;
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
  app.get('/openapi.json', (_request, response) => void response.json(deps.openApi));
  app.get('/ready', ready(deps.fleet, deps.inflight));
  const { keyring, metricsHandler } = deps;
  if (metricsHandler !== undefined) app.get('/metrics', mayRead(keyring), metricsHandler);
  deps.ui?.mountPage(app);

  const first: RequestHandler[] = [keepRecords(deps), cors(deps.cors)];
  app.use(first);
  if (metricsHandler !== undefined) app.get('/metrics', refuseKey('/metrics'));
  const hot = new Map<string, RequestHandler[]>();
  for (const route of ROUTES) {
    const single = forward(route, deps);
    const handler = route.path === '/v1/models' ? listModels(single, deps) : single;
    const handlers = [authenticate(route.path, keyring), handler];
    if (route.method === 'GET') app.get(route.path, handlers);
    else app.post(route.path, handlers);
    if (isHot(route)) hot.set(route.path, [...first, ...handlers]);
  }
  deps.ui?.mountApi(app, (path) => authenticate(path, keyring));
  const own = ['/health', '/ready', '/openapi.json', ...(metricsHandler === undefined ? [] : ['/metrics'])];
  const known = new Set([...ROUTES.map(({ path }) => path), ...own]);
  for (const path of known) app.all(path, otherMethods(path, allowed(path)));

  app.use(notFound());
  const onError = answerErrors(deps.logger);
  app.use(onError);
  return hotRoutes(app, hot, onError);
}
