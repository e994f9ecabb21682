import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { LOOPBACK } from './config.ts';

export interface LocalOnlyOptions {
  /** Names that requests may be sent to, beside those of this machine; `*`: all. */
  hosts: readonly string[];
  /** Origins whose pages may send requests; `*`: all. */
  origins: readonly string[];
}

/**
 * Whether a request to a gateway that asks for no keys is from a program on this machine, and not from a web page that a
 * browser on it shows: a name of the web that was pointed at this machine (DNS rebinding) is not this machine's, and a page
 * of another site says so in `Origin` or `Sec-Fetch-Site`. Names without a dot cannot be had on the web; an address is what
 * a browser connects to.
 */
export function createLocalOnly({ hosts, origins }: LocalOnlyOptions): (request: IncomingMessage) => boolean {
  const anyHost = hosts.includes('*');
  const named = new Set(hosts.map((host) => host.toLowerCase()));
  const isOwn = (authority: string): boolean => {
    const host = hostOf(authority);
    return host !== undefined && (!host.includes('.') || LOOPBACK.test(host) || isIP(host) !== 0 || named.has(host));
  };
  return function isLocal({ headers, method }) {
    if (!anyHost && headers.host !== undefined && !isOwn(headers.host)) return false;
    const { origin } = headers;
    if (origin !== undefined) {
      if (origins.includes('*') || origins.includes(origin)) return true;
      const authority = /^https?:\/\/([^/]+)$/.exec(origin)?.[1];
      if (authority === undefined) return false;
      const host = hostOf(authority);
      return authority === headers.host || (host !== undefined && (LOOPBACK.test(host) || named.has(host)));
    }
    // A link from another page may be followed; whatever else a page fetches from elsewhere may not.
    const isLink = method === 'GET' && headers['sec-fetch-mode'] === 'navigate';
    return headers['sec-fetch-site'] !== 'cross-site' || isLink;
  };
}

/** The host of `host:port`, in lower case and without the brackets of IPv6. */
function hostOf(authority: string): string | undefined {
  const found = /^(?:\[([0-9a-f:.]+)\]|([^:[\]/@]+))(?::\d+)?$/i.exec(authority);
  return (found?.[1] ?? found?.[2])?.toLowerCase();
}
