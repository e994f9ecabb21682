import type { PolicyPeer } from '../fleet/policy-peer.ts';
import { WatchHub } from './watch-hub.ts';

/** Policy services that one page shows. */
const MAX_SOURCES = 8;

/** A policy service, with the number by which the page knows it. */
export interface Source {
  peer: PolicyPeer;
  hub: WatchHub;
}

/** The policy services beside the backends of the moment, each once; a number is never given twice. */
export function createSources(peers: () => readonly PolicyPeer[]): () => Source[] {
  let known = new Map<PolicyPeer, Source>();
  let next = 0;
  return () => {
    const byAddress = new Map(peers().map((peer) => [peer.address, peer]));
    const current = [...byAddress.values()].slice(0, MAX_SOURCES).map((peer): Source => {
      const source = known.get(peer);
      if (source !== undefined) return source;
      next += 1;
      return { peer, hub: new WatchHub(next - 1, peer) };
    });
    known = new Map(current.map((source) => [source.peer, source]));
    return current;
  };
}
