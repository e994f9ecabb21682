/** Where a response is. */
export interface Made {
  /** The URL of the backend. */
  backend: string;
  /** The id of the API key that it was made for; undefined: nobody was asked for one. */
  key: string | undefined;
}

/** Which backend made which response, and for whom, for the paths that must reach that one. */
export interface ResponseIds {
  /** A response that is known to be of a key stays that key's. Must not reject; what cannot be remembered is forgotten. */
  remember(id: string, made: Made): void;
  /** Undefined: not known, or forgotten. Must not reject. */
  find(id: string): Promise<Found> | Found;
}

/** `unasked`: those who may know cannot be asked. */
export type Found = Made | 'unasked' | undefined;

/** Those that this process remembers. */
export interface LocalResponseIds extends ResponseIds {
  find(id: string): Made | undefined;
}

export interface ResponseIdSettings {
  /** Seconds. */
  remember_s: number;
  /** The oldest go when there are more. */
  remember_max: number;
}

/** In memory. Each use of an id makes it the youngest. */
export function createResponseIds(settings: () => ResponseIdSettings, now = () => performance.now()): LocalResponseIds {
  const known = new Map<string, { made: Made; until: number }>();

  const find = (id: string): Made | undefined => {
    const entry = known.get(id);
    return entry === undefined || entry.until <= now() ? undefined : entry.made;
  };
  const put = (id: string, made: Made) => {
    const { remember_s, remember_max } = settings();
    known.delete(id);
    known.set(id, { made, until: now() + remember_s * 1000 });
    for (const oldest of known.keys()) {
      if (known.size <= remember_max) break;
      known.delete(oldest);
    }
  };
  return {
    remember(id, made) {
      const key = find(id)?.key;
      if (key === undefined || key === made.key) put(id, made);
    },
    find(id) {
      const made = find(id);
      if (made === undefined) known.delete(id);
      else put(id, made);
      return made;
    },
  };
}

/** The id is in the first bytes of a response: first in the object, or in the first event of a stream. */
const ID = /"id"\s*:\s*"([A-Za-z0-9._:-]{1,128})"/;
const MAX_BYTES = 8 * 1024;

/** Looks for the id of a response in its bytes as they pass. `onId` is called at most once. */
export function idReader(onId: (id: string) => void): (chunk: Buffer) => void {
  let text = '';
  let done = false;
  return (chunk) => {
    if (done) return;
    text += chunk.toString('latin1', 0, MAX_BYTES - text.length);
    const id = ID.exec(text)?.[1];
    done = id !== undefined || text.length >= MAX_BYTES;
    if (id !== undefined) onId(id);
    if (done) text = '';
  };
}
