import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

const LISTENS = '0A';

/** How many sockets of each kind. */
export type Sockets = ReadonlyMap<string, number>;

/** The open sockets of a process, by what they are connected with, from /proc. */
export function socketsOf(pid: number): Sockets {
  const counts = new Map<string, number>();
  for (const kind of kindsOf(pid)) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

/** Of each kind the fewer. */
export function fewest(one: Sockets, other: Sockets): Sockets {
  return new Map([...one].map(([kind, count]) => [kind, Math.min(count, other.get(kind) ?? 0)]));
}

/** Kinds of which there are more than before; one text each. */
export function added(before: Sockets, after: Sockets): string[] {
  return [...after].flatMap(([kind, count]) => {
    const more = count - (before.get(kind) ?? 0);
    return more > 0 ? [`${more} more ${kind}`] : [];
  });
}

function kindsOf(pid: number): string[] {
  const kinds = new Map([...tcp(pid, 'tcp'), ...tcp(pid, 'tcp6')]);
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((name) => {
    const inode = /^socket:\[(\d+)\]$/.exec(link(join(folder, name)))?.[1];
    return inode === undefined ? [] : [kinds.get(inode) ?? 'not of the network'];
  });
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // closed meanwhile
    return '';
  }
}

/** By inode. */
function tcp(pid: number, table: string): [inode: string, kind: string][] {
  const lines = readFileSync(`/proc/${pid}/net/${table}`, 'utf8').trim().split('\n').slice(1);
  return lines.map((line) => {
    const [, local = '', remote = '', state = '', , , , , , inode = ''] = line.trim().split(/\s+/);
    return [inode, state === LISTENS ? `listens on ${port(local)}` : `with port ${service(local, remote)}`];
  });
}

/** Ports of services here are below those that clients get. */
const service = (local: string, remote: string): number => Math.min(port(local), port(remote));
const port = (address: string): number => Number.parseInt(address.split(':')[1] ?? '', 16);
