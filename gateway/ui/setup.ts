import type { RequestHandler } from 'express';
import { MODES } from '../../common/protocol.ts';
import type { PolicyPeer } from '../fleet/policy-peer.ts';
import { ownHeaders, recordOf } from '../observe/record.ts';
import type { Source } from './sources.ts';
import { engineOf } from './state-event.ts';

export interface SetupDeps {
  sources: () => readonly Source[];
  /** What a request may ask for, in tokens. */
  budgetTokens: { min: number; max: number };
}

/** `GET /ui/api/setup`: what the page can offer. A policy service that does not answer is told as an error, not raised. */
export function answerSetup({ sources, budgetTokens }: SetupDeps, route: string): RequestHandler {
  return async function sendSetup(_request, response) {
    const record = recordOf(response);
    record.route = route;
    const allowed = record.key?.profiles;
    const described = await Promise.all(sources().map(({ peer }) => describe(peer, allowed)));
    const body = Buffer.from(JSON.stringify({ budgetTokens, sources: described }));
    response
      .writeHead(200, [
        ...['content-type', 'application/json', 'content-length', String(body.length), 'cache-control', 'no-store'],
        ...ownHeaders(record),
      ])
      .end(body);
  };
}

/** `allowed`: the profiles of the key that asks; undefined: all. */
async function describe(peer: PolicyPeer, allowed: readonly string[] | undefined) {
  try {
    const [engines, profiles, policies] = await Promise.all([peer.engines(), peer.profiles(), peer.policies()]);
    return {
      reachable: true,
      engines: engines.map(engineOf),
      profiles: profiles
        .filter(({ name }) => allowed?.includes(name) ?? true)
        .map(({ name, isDefault, policy, controller, mode, budgetTokens }) => ({
          ...{ name, isDefault, policy, controller, mode: MODES.word(mode) ?? 'enforce', budgetTokens },
        })),
      policies,
    };
  } catch {
    return { reachable: false, engines: [], profiles: [], policies: [] };
  }
}
