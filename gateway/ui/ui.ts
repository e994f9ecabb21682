import type { Express, RequestHandler } from 'express';
import type { ExpressRoutes } from '../express-routes.ts';
import type { PolicyPeer } from '../fleet/policy-peer.ts';
import type { Guard } from '../request/exchange.ts';
import { otherMethods } from '../response/answers.ts';
import { loadAssets, serveAsset } from './assets.ts';
import { answerSetup, type SetupDeps } from './setup.ts';
import { createSources } from './sources.ts';
import { createViewers } from './viewers.ts';

const SETUP = '/ui/api/setup';
const EVENTS = '/ui/api/events';
const ALLOW = 'GET, HEAD, OPTIONS';

export interface UiDeps extends Pick<SetupDeps, 'budgetTokens'> {
  /** The policy services beside the backends of the moment; several with one address are shown once. */
  peers: () => readonly PolicyPeer[];
}

/** The live page. */
export interface Ui {
  /** The page's files. They hold nothing that is not in the public repository, and need no key. */
  mountPage(app: Express): void;
  /** What the page reads: behind whatever guards the other paths. */
  mountApi(routes: ExpressRoutes, guard: (path: string) => Guard): void;
  /** Ends the streams and their watches: nobody waits for a page that is only looking. */
  close(): void;
}

function leadTo(location: string): RequestHandler {
  return (_request, response) => void response.writeHead(302, { location, 'content-length': 0 }).end();
}

/** @see UiDeps. Nothing is connected before somebody looks. */
export function createUi({ peers, budgetTokens }: UiDeps): Ui {
  const sources = createSources(peers);
  const viewers = createViewers(sources, EVENTS);
  const assets = loadAssets();
  return {
    mountPage(app) {
      for (const [path, asset] of assets) app.get(path, serveAsset(asset));
      const icon = assets.get('/ui/icon.svg');
      if (icon !== undefined) app.get('/favicon.ico', serveAsset(icon));
      // Relative, for gateways below a prefix.
      app.get('/', leadTo('ui'));
      app.get('/ui/', leadTo('../ui'));
    },
    mountApi(routes, guard) {
      const setup = answerSetup({ sources, budgetTokens }, SETUP);
      routes.add('GET', SETUP, { guards: [guard(SETUP)], handler: setup });
      routes.add('GET', EVENTS, { guards: [guard(EVENTS)], handler: viewers.handler });
      for (const path of [SETUP, EVENTS, ...assets.keys()]) {
        routes.add('ALL', path, { guards: [], handler: otherMethods(path, ALLOW) });
      }
    },
    close: () => viewers.close(),
  };
}
