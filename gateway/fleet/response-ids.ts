/** Which backend made which response, for the paths that must reach that one. */
export interface ResponseIds {
  /** Must not reject; what cannot be remembered is forgotten. */
  remember(id: string, backend: string): void;
  /** The URL of the backend; undefined: not known, or forgotten. Must not reject. */
  find(id: string): Promise<string | undefined> | string | undefined;
}

export interface ResponseIdSettings {
  /** Seconds. */
  remember_s: number;
  /** The oldest go when there are more. */
  remember_max: number;
}

/** In memory. Each use of an id makes it the youngest. */
export function createResponseIds(settings: () => ResponseIdSettings, now = () => performance.now()): ResponseIds {
  const known = new Map<string, { backend: string; until: number }>();

  const remember = (id: string, backend: string) => {
    const { remember_s, remember_max } = settings();
    known.delete(id);
    known.set(id, { backend, until: now() + remember_s * 1000 });
    for (const oldest of known.keys()) {
      if (known.size <= remember_max) break;
      known.delete(oldest);
    }
  };
  return {
    remember,
    find(id) {
      const entry = known.get(id);
      if (entry === undefined) return undefined;
      if (entry.until <= now()) {
        known.delete(id);
        return undefined;
      }
      remember(id, entry.backend);
      return entry.backend;
    },
  };
}

/** The id is in the first bytes of a response: first in the object, or in the first event of a stream. */
const ID = /"id"\s*:\s*"([A-Za-z0-9._:-]{1,128})"/;
const MOST_BYTES = 8 * 1024;

/** Looks for the id of a response in its bytes as they pass. `onId` is called at most once. */
export function idReader(onId: (id: string) => void): (chunk: Buffer) => void {
  let text = '';
  let done = false;
  return (chunk) => {
    if (done) return;
    text += chunk.toString('latin1', 0, MOST_BYTES - text.length);
    const id = ID.exec(text)?.[1];
    done = id !== undefined || text.length >= MOST_BYTES;
    if (id !== undefined) onId(id);
    if (done) text = '';
  };
}
