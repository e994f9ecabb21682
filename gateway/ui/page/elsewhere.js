/** @import { Frame } from './frames.js' */
/** @import { RowContent } from './map.js' */

/** Requests from elsewhere stay this long after their end. */
const LINGER_MS = 15_000;
const MAX_SHOWN = 12;

/** Requests that are not this page's: it sees their blocks, not their text. */
export class Elsewhere {
  /** @type {Map<string, { frame: Frame, endedAt: number | undefined }>} */
  #requests = new Map();

  /** @param {Frame} frame */
  add(frame) {
    this.#requests.set(frame.key, { frame, endedAt: frame.ended ? performance.now() : undefined });
  }

  /** @param {string} key */
  remove(key) {
    this.#requests.delete(key);
  }

  /**
   * Those of a source that it no longer tells of have ended.
   *
   * @param {number} source
   * @param {Set<string>} seen
   */
  endUnseen(source, seen) {
    for (const [key, request] of this.#requests) {
      if (key.startsWith(`${source} `) && !seen.has(key)) request.endedAt ??= performance.now();
    }
  }

  /**
   * The newest first.
   *
   * @param {(frame: Frame) => boolean} isMine the page sent it
   * @param {boolean} waiting an id that the page does not know yet may be its own
   * @returns {RowContent[]}
   */
  rows(isMine, waiting) {
    const now = performance.now();
    for (const [key, { endedAt, frame }] of this.#requests) {
      if (isMine(frame) || (endedAt !== undefined && now - endedAt > LINGER_MS)) this.#requests.delete(key);
    }
    return [...this.#requests.values()]
      .filter(({ endedAt }) => !waiting || endedAt !== undefined)
      .toSorted((a, b) => b.frame.handle - a.frame.handle)
      .slice(0, MAX_SHOWN)
      .map(({ frame, endedAt }) => ({
        key: frame.key,
        title: `request ${frame.handle} from elsewhere (${frame.policy})`,
        frame,
        transcript: undefined,
        over: endedAt !== undefined,
      }));
  }
}
