/** @import { Frame } from './frames.js' */
import { leftOf } from './held.js';

/** Colours of kept blocks, from the one that leaves first to the one that leaves last. */
export const LEVELS = 5;
/** Attention of one head at one step of a probed answer from which a block counts as picked: the rule for hits. */
export const PICK_MASS = 0.1;

/**
 * @typedef {object} Cell
 * @property {'prompt' | 'kept' | 'newest' | 'hole'} kind
 * @property {number} level 0 to LEVELS - 1; of kept blocks only
 * @property {boolean} pick a probe of the answer read it
 */

/**
 * @param {Frame} frame
 * @param {number} block
 */
export function isKept(frame, block) {
  return (((frame.keep[block >> 3] ?? 0) >> (block & 7)) & 1) === 1;
}

/**
 * What to draw for each block. Blocks are ranked and not scaled: policies have values of any size, and what matters is
 * which leaves first.
 *
 * @param {Frame} frame
 * @returns {Cell[]}
 */
export function cellsOf(frame) {
  const levels = levelsOf(frame);
  return Array.from({ length: frame.blocks }, (_, block) => ({
    kind: kindOf(frame, block),
    level: levels.get(block) ?? 0,
    pick: (frame.probe[block] ?? 0) >= PICK_MASS && isKept(frame, block),
  }));
}

/**
 * @param {Frame} frame
 * @param {number} block
 * @returns {Cell['kind']}
 */
function kindOf(frame, block) {
  if (!isKept(frame, block)) return 'hole';
  if (block < frame.from) return 'prompt';
  return block < frame.to ? 'kept' : 'newest';
}

/**
 * Equal values have equal levels: the middle one when nothing tells blocks apart.
 *
 * @param {Frame} frame
 */
function levelsOf(frame) {
  const kept = [];
  for (let block = frame.from; block < Math.min(frame.to, frame.blocks); block += 1)
    if (isKept(frame, block)) kept.push(block);
  const value = (/** @type {number} */ block) => frame.values[block] ?? 0;
  kept.sort((a, b) => value(a) - value(b));
  const levels = new Map();
  for (let from = 0; from < kept.length; ) {
    let to = from + 1;
    while (to < kept.length && value(kept[to] ?? 0) === value(kept[from] ?? 0)) to += 1;
    const level = Math.floor(((from + to) / 2 / kept.length) * LEVELS);
    for (let i = from; i < to; i += 1) levels.set(kept[i], Math.min(LEVELS - 1, level));
    from = to;
  }
  return levels;
}

/**
 * A block in words, without its text.
 *
 * @param {Frame} frame
 * @param {number} block
 */
export function blockFacts(frame, block) {
  const [from, to] = [block * frame.blockSize, Math.min(frame.tokens, (block + 1) * frame.blockSize)];
  const facts = [`tokens ${from} to ${to - 1}`];
  const kind = kindOf(frame, block);
  if (kind === 'hole') {
    const left = frame.held === undefined ? 0 : Math.round(100 * leftOf(frame, block));
    facts.push(`its memory was given back${left === 0 ? '' : `; ${left} % of its tokens live on in other blocks`}`);
  }
  if (kind === 'prompt') facts.push('the question: it always stays');
  if (kind === 'newest') facts.push('among the newest: it stays for now');
  if (kind === 'kept') {
    const kept = [];
    for (let other = frame.from; other < frame.to; other += 1)
      if (isKept(frame, other)) kept.push(frame.values[other] ?? 0);
    const before = kept.filter((value) => value < (frame.values[block] ?? 0)).length;
    facts.push(kept.length === 1 ? 'kept' : `kept: ${before} of ${kept.length - 1} other blocks would go before it`);
  }
  if (kind === 'kept' || kind === 'hole') facts.push(readFacts(frame, block));
  const mass = frame.probe[block] ?? 0;
  if (frame.probes > 0 && mass > 0) {
    const percent = (100 * mass).toFixed(mass < 0.01 ? 1 : 0);
    facts.push(`the trial answers put up to ${percent} % of one head's attention on it`);
  }
  return facts;
}

/**
 * @param {Frame} frame
 * @param {number} block
 */
function readFacts(frame, block) {
  const hits = frame.hits[block] ?? 0;
  const last = frame.lastHit[block] ?? 0;
  if (hits === 0) return frame.hits.length === 0 ? 'reads not counted' : 'not read at any measured step';
  const ago = Math.max(0, frame.tokens - last);
  return `read at ${hits} measured ${hits === 1 ? 'step' : 'steps'}, last ${ago === 0 ? 'just now' : `${ago} tokens ago`}`;
}

/**
 * The map of a request in words: neighbours of one kind together.
 *
 * @param {Frame} frame
 */
export function describe(frame) {
  const names = { prompt: 'question', kept: 'kept', newest: 'newest', hole: 'given back' };
  const cells = cellsOf(frame);
  const parts = [];
  for (let from = 0; from < cells.length; ) {
    const kind = cells[from]?.kind ?? 'kept';
    let to = from + 1;
    while (to < cells.length && cells[to]?.kind === kind) to += 1;
    parts.push(to - from === 1 ? `block ${from} ${names[kind]}` : `blocks ${from} to ${to - 1} ${names[kind]}`);
    from = to;
  }
  const picks = cells.flatMap(({ pick }, block) => (pick ? [block] : []));
  return `${parts.join('; ')}.${picks.length === 0 ? '' : ` Read by trial answers: ${picks.join(', ')}.`}`;
}
