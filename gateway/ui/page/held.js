/** @import { Frame } from './frames.js' */
import { isKept } from './cells.js';

/** All layers and heads hold the token. */
export const ALL = 255;
/** Steps of ink, from a token that is forgotten to one that everything holds. */
export const INKS = 8;

/**
 * What an engine says of single tokens: see HeldTokens in the protocol.
 *
 * @typedef {object} Held
 * @property {number} from position of the first token described
 * @property {Uint8Array} shares one byte a token
 * @property {Uint8Array} groups bits of each head group, in rows of whole bytes; may be empty
 */

/** @param {string} text base64 */
export function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/**
 * How much of the token at a position is in memory, 0 to 255. Where the engine does not tell tokens apart, that of its block.
 *
 * @param {Frame | undefined} frame
 * @param {number} position
 */
export function shareOf(frame, position) {
  if (frame === undefined) return ALL;
  if (frame.held !== undefined) return frame.held.shares[position - frame.held.from] ?? ALL;
  const block = Math.floor(position / frame.blockSize);
  return block >= frame.blocks || isKept(frame, block) ? ALL : 0;
}

/** @param {number} share 0 to 255; only none is 0, and only all is the last step */
export function inkOf(share) {
  if (share === 0 || share === ALL) return share === 0 ? 0 : INKS - 1;
  return Math.min(INKS - 2, Math.max(1, Math.round((share / ALL) * (INKS - 1))));
}

/** @param {Frame} frame */
export function groupsOf({ held }) {
  if (held === undefined || held.shares.length === 0) return 0;
  return Math.floor(held.groups.length / Math.ceil(held.shares.length / 8));
}

/**
 * Whether a head group holds the token at a position.
 *
 * @param {Held} held with bits of groups
 * @param {number} group
 * @param {number} position
 */
export function holds({ from, shares, groups }, group, position) {
  const token = position - from;
  if (token < 0 || token >= shares.length) return true;
  return (((groups[group * Math.ceil(shares.length / 8) + (token >> 3)] ?? 0) >> (token & 7)) & 1) === 1;
}

/**
 * How many of a block's tokens are in memory, whole copies: in a merged block's place, those that live on in others.
 *
 * @param {Frame} frame
 * @param {number} block
 */
export function leftOf(frame, block) {
  let sum = 0;
  for (let i = 0; i < frame.blockSize; i += 1) sum += shareOf(frame, block * frame.blockSize + i);
  return sum / ALL / frame.blockSize;
}
