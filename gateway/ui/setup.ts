import { MODES } from '../../common/protocol.ts';
import type { PolicyPeer } from '../fleet/policy-peer.ts';
import type { Handler } from '../request/exchange.ts';
import { sendJson } from '../response/send-json.ts';
import type { Source } from './sources.ts';
import { engineOf } from './state-event.ts';

export interface SetupDeps {
  sources: () => readonly Source[];
  /** What a request may ask for, in tokens. */
  budgetTokens: { min: number; max: number };
}

/** `GET /ui/api/setup`: what the page can offer. A policy service that does not answer is told as an error, not raised. */
export function answerSetup({ sources, budgetTokens }: SetupDeps, route: string): Handler {
  return async function sendSetup(exchange) {
    const { record } = exchange;
    record.route = route;
    const allowed = record.key?.profiles;
    const described = await Promise.all(sources().map(({ peer }) => describe(peer, allowed)));
    const setup = JSON.stringify({ budgetTokens, sources: described });
    sendJson(exchange, 200, setup, ['cache-control', 'no-store']);
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
