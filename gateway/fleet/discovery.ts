import { lookup, Resolver } from 'node:dns/promises';
import { isIPv4, isIPv6 } from 'node:net';
import type { Logger } from '../../common/logger.ts';
import { within } from '../../common/time.ts';
import type { BackendSpec } from './backend.ts';
import { type Repeated, repeat } from './repeat.ts';

/** `auto`: those of IPv4 where there are some: a pod with one of each is one backend. */
export const FAMILIES = ['auto', 'ipv4', 'ipv6', 'both'] as const;
type Family = (typeof FAMILIES)[number];

/** A name whose addresses are backends, such as a headless service of Kubernetes. */
export interface DnsEntry {
  dns: string;
  port: number;
  scheme: 'http' | 'https';
  /** In front of every path, without a trailing slash. */
  path: string;
  interval_ms: number;
  /** The port of the policy service beside each address. */
  policyPort?: number | undefined;
  /** Which of its addresses count. */
  family?: Family | undefined;
  models?: readonly string[] | undefined;
  apiKey?: string | undefined;
  xargs?: boolean | undefined;
  /** Of each address. */
  weight?: number | undefined;
}

export type BackendEntry = BackendSpec | DnsEntry;

/** All addresses of a name. Rejects when there is none or nobody answers. */
export type Resolve = (name: string) => Promise<string[]>;

/** A name server that does not answer holds up nobody longer than this. */
const RESOLVE_MS = 5_000;

export interface DiscoveryDeps {
  logger: Logger;
  resolve: () => Resolve;
  onList(specs: readonly BackendSpec[]): void;
  onError(name: string): void;
  onSuccess(name: string): void;
}

/** Turns the configured entries into a list of backends, again and again. */
export interface Discovery {
  /** Resolves after each name was asked for once, whatever came of it. */
  ready(): Promise<void>;
  replace(entries: readonly BackendEntry[]): void;
  close(): void;
}

/**
 * Addresses that were found stay until others are found: a name server that fails, or a name that has none for a moment,
 * takes no backend away.
 */
export function createDiscovery(entries: readonly BackendEntry[], deps: DiscoveryDeps): Discovery {
  let current: { entry: BackendEntry; addresses: readonly string[]; work: Repeated | undefined }[] = [];

  const tell = () => {
    const specs = new Map<string, BackendSpec>();
    for (const { entry, addresses } of current) {
      for (const spec of 'dns' in entry ? addresses.map((address) => specOf(entry, address)) : [entry]) {
        if (!specs.has(spec.url)) specs.set(spec.url, spec);
      }
    }
    deps.onList([...specs.values()]);
  };

  const replace = (next: readonly BackendEntry[]) => {
    const before = current;
    for (const { work } of before) work?.stop();
    current = next.map((entry) => {
      const same = before.find((known) => 'dns' in entry && 'dns' in known.entry && known.entry.dns === entry.dns);
      const item = { entry, addresses: same?.addresses ?? [], work: undefined as Repeated | undefined };
      if ('dns' in entry)
        item.work = repeat(
          () => ask(entry, item),
          () => entry.interval_ms,
        );
      return item;
    });
    tell();
  };

  const ask = async ({ dns, family = 'auto' }: DnsEntry, item: (typeof current)[number]) => {
    let found: string[];
    try {
      const answer = await within(deps.resolve()(dns), RESOLVE_MS);
      if (answer === undefined) throw new Error(`no answer within ${RESOLVE_MS} ms`);
      found = ofFamily(answer, family).toSorted();
      if (found.length === 0) throw new Error(`none of its addresses is ${family}`);
      deps.onSuccess(dns);
    } catch (error) {
      deps.onError(dns);
      deps.logger.warn({ name: dns, reason: (error as Error).message }, 'the name of a backend cannot be resolved');
      return;
    }
    // Replaced while it was asked for.
    if (!current.includes(item) || found.join() === item.addresses.join()) return;
    item.addresses = found;
    tell();
  };

  replace(entries);
  return {
    async ready() {
      await Promise.all(current.map(({ work }) => work?.now()));
    },
    replace,
    close() {
      for (const { work } of current) work?.stop();
    },
  };
}

function ofFamily(addresses: readonly string[], family: Family): readonly string[] {
  if (family === 'both') return addresses;
  if (family === 'ipv6') return addresses.filter(isIPv6);
  const four = addresses.filter((address) => isIPv4(address));
  return family === 'ipv4' || four.length > 0 ? four : addresses;
}

/** The system's resolver, or the name servers given as host:port. */
export function resolverFor(servers: readonly string[]): Resolve {
  if (servers.length === 0) {
    return async (name) => (await lookup(name, { all: true })).map(({ address }) => address);
  }
  const resolver = new Resolver({ timeout: 1_000, tries: 2 });
  resolver.setServers(servers);
  return async (name) => {
    const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    const found = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    if (found.length === 0 && answers[0].status === 'rejected') throw answers[0].reason;
    return found;
  };
}

function specOf(
  { dns, port, scheme, path, policyPort, models, apiKey, xargs, weight }: DnsEntry,
  address: string,
): BackendSpec {
  const host = isIPv6(address) ? `[${address}]` : address;
  return {
    url: `${scheme}://${host}:${port}${path}`,
    models,
    apiKey,
    xargs,
    weight,
    ...(policyPort !== undefined && { policyAddress: `${host}:${policyPort}` }),
    ...(scheme === 'https' && { servername: dns }),
  };
}
