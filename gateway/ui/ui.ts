import type { Express, RequestHandler } from 'express';
import type { PolicyPeer } from '../fleet/policy-peer.ts';
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
  mountApi(app: Express, guard: (path: string) => RequestHandler): void;
  /** Ends the streams and their watches: nobody waits for a page that is only looking. */
  close(): void;
}

/** @see UiDeps. Nothing is connected before somebody looks. */
export function createUi({ peers, budgetTokens }: UiDeps): Ui {
  const sources = createSources(peers);
  const viewers = createViewers(sources, EVENTS);
  const assets = loadAssets();
  return {
    mountPage(app) {
      for (const [path, asset] of assets) app.get(path, serveAsset(asset));
    },
    mountApi(app, guard) {
      app.get(SETUP, guard(SETUP), answerSetup({ sources, budgetTokens }, SETUP));
      app.get(EVENTS, guard(EVENTS), viewers.handler);
      for (const path of [SETUP, EVENTS, ...assets.keys()]) app.all(path, otherMethods(path, ALLOW));
    },
    close: () => viewers.close(),
  };
}
