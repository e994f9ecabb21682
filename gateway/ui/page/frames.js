/** @import { Held } from './held.js' */
import { bytesOf } from './held.js';

/** Frames of one request that are remembered; with more, every other one is dropped. */
const MAX_FRAMES = 1_200;

/**
 * @typedef {object} Frame the state of one request at one moment
 * @property {string} key one request of one engine of one source
 * @property {string} engineId
 * @property {number} handle
 * @property {string} id the gateway's id of the request, or empty
 * @property {number} choice
 * @property {number} promptTokens
 * @property {number} tokens in the cache's positions, holes included
 * @property {number} phase
 * @property {string} profile
 * @property {string} policy
 * @property {number} mode
 * @property {number} blocks what a full cache would hold
 * @property {number} resident
 * @property {number} evicted
 * @property {number} peak
 * @property {Uint8Array} keep bit i: block i is in memory
 * @property {number[]} values
 * @property {number} from first block that may be evicted
 * @property {number} to one after the last
 * @property {number[]} probe
 * @property {number} probes
 * @property {number} probeTokens
 * @property {number[]} hits
 * @property {number[]} lastHit
 * @property {boolean} cold
 * @property {Held | undefined} held what is in memory of each token, where the engine tells
 * @property {{ blocks: number, steps: number, missed: number } | undefined} [shadow] of a request that is only watched: what it
 *   would have lost, and the mean share of attention on that over the measured steps
 * @property {boolean} ended it is the last one
 * @property {number} blockSize
 */

/**
 * @param {any} request of an event
 * @param {number} source
 * @param {number} blockSize
 * @returns {Frame}
 */
export function frameOf(request, source, blockSize) {
  const key = `${source} ${request.engineId} ${request.handle}`;
  const { held } = request;
  const tokens = held && { from: held.from, shares: bytesOf(held.shares), groups: bytesOf(held.groups) };
  return { ...request, key, keep: bytesOf(request.keep), held: tokens, blockSize };
}

/** The life of one request, to be looked at again. */
export class Frames {
  /** @type {Frame[]} */
  #frames = [];

  /** @param {Frame} frame */
  add(frame) {
    const last = this.#frames.at(-1);
    if (
      last !== undefined &&
      last.tokens === frame.tokens &&
      last.evicted === frame.evicted &&
      last.probes === frame.probes
    )
      this.#frames.pop();
    this.#frames.push(frame);
    if (this.#frames.length > MAX_FRAMES) this.#frames = this.#frames.filter((_, index) => index % 2 === 1);
  }

  get last() {
    return this.#frames.at(-1);
  }

  get all() {
    return this.#frames;
  }

  /**
   * The newest state in which at most `generated` tokens beyond the prompt were computed; the first one before that.
   *
   * @param {number} generated
   */
  at(generated) {
    for (let i = this.#frames.length - 1; i >= 0; i -= 1) {
      const frame = this.#frames[i];
      if (frame !== undefined && frame.tokens - frame.promptTokens <= generated) return frame;
    }
    return this.#frames[0];
  }
}
