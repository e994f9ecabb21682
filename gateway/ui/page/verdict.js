/** @import { Frame } from './frames.js' */

/** A number stays with its unit. */
const NBSP = '\u00a0';

/**
 * What a verdict is made of: a request of this page, or a recorded one.
 *
 * @typedef {object} Told
 * @property {'waiting' | 'running' | 'done' | 'stopped' | 'failed'} state
 * @property {string} error
 * @property {string} answer
 * @property {Frame | undefined} frame the state to speak of: the last one when it has ended
 */

/**
 * @typedef {object} Verdict
 * @property {string} headline
 * @property {string} detail
 * @property {'good' | 'bad' | 'open'} tone
 */

/**
 * How it went, in one sentence and a second one with the figures.
 *
 * @param {Told[]} told the full cache first when there are two
 * @param {{ over: boolean, expected: string | undefined, bytesPerBlock: number }} facts
 * @returns {Verdict}
 */
export function verdict(told, { over, expected, bytesPerBlock }) {
  const failed = told.find(({ state }) => state === 'failed');
  if (failed !== undefined) return { headline: 'It failed', detail: failed.error, tone: 'bad' };
  if (told.some(({ state }) => state === 'stopped')) return { headline: 'Stopped', detail: '', tone: 'open' };
  const managed = told.at(-1);
  if (managed?.frame?.shadow !== undefined) return watched(managed.frame, managed.frame.shadow, over);
  const detail = managed?.frame === undefined ? '' : figures(managed.frame, bytesPerBlock);
  const less = lessOf(managed?.frame);
  if (!over || managed === undefined) {
    const headline = less === 0 ? 'Thinking' : `Thinking with ${less}${NBSP}% less memory`;
    return { headline, detail: less === 0 ? 'Nothing had to go so far.' : detail, tone: 'open' };
  }
  const full = told.length > 1 ? told[0] : undefined;
  const memory = less === 0 ? 'no memory saved' : `${less}${NBSP}% less memory`;
  if (full === undefined) {
    const right = expected === undefined ? 'Answered' : managed.answer === expected ? 'Right answer' : 'Wrong answer';
    return { headline: `${right}, ${memory}`, detail, tone: right === 'Wrong answer' ? 'bad' : 'good' };
  }
  if (full.answer === managed.answer) {
    const wrong = expected !== undefined && full.answer !== expected;
    const also = wrong ? 'The model gets this one wrong with all of its memory, too. ' : '';
    return { headline: `Same answer, ${memory}`, detail: `${also}${detail}`, tone: 'good' };
  }
  const better = expected !== undefined && managed.answer === expected;
  return {
    headline: `${better ? 'Another answer, the right one' : 'Not the same answer'}, ${memory}`,
    detail: `${better ? '' : 'This much was too much: give it more memory, or another policy. '}${detail}`,
    tone: better ? 'good' : 'bad',
  };
}

/**
 * Of a request from which nothing is taken: what that would have saved, and what it would have cost.
 *
 * @param {Frame} frame
 * @param {NonNullable<Frame['shadow']>} shadow
 * @param {boolean} over
 * @returns {Verdict}
 */
function watched({ blocks }, { blocks: gone, steps, missed }, over) {
  const saved = `${percent(gone / Math.max(1, blocks))} of the memory`;
  const cost =
    steps === 0
      ? 'Its price was not measured yet.'
      : `What it would have let go got ${percent(missed)} of the attention.`;
  return {
    headline: over ? `It would have saved ${saved}` : `Thinking, only watched: it would save ${saved}`,
    detail: `This policy lets nothing go. ${cost}`,
    tone: 'open',
  };
}

/** @param {number} share */
const percent = (share) => `${Math.round(100 * share)}${NBSP}%`;

/** @param {Frame | undefined} frame percent of a full cache that is free */
export function lessOf(frame) {
  return frame === undefined ? 0 : Math.round((100 * (frame.blocks - frame.resident)) / Math.max(1, frame.blocks));
}

/**
 * @param {Frame} frame
 * @param {number} bytesPerBlock 0: unknown
 */
function figures({ resident, blocks }, bytesPerBlock) {
  const [kept, full] =
    bytesPerBlock === 0
      ? [`${resident} blocks`, `${blocks}`]
      : [amount(resident * bytesPerBlock), amount(blocks * bytesPerBlock)];
  const times = (blocks / Math.max(1, resident)).toFixed(1);
  const room = resident === blocks ? '' : ` Room for ${times}${NBSP}times as many such requests.`;
  return `${kept} of memory instead of ${full}.${room}`;
}

/** @param {number} bytes */
export function amount(bytes) {
  const { unit, size } = unitOf(bytes);
  const value = bytes / size;
  return `${value < 100 ? value.toPrecision(2).replace(/\.0$/, '') : Math.round(value)}${NBSP}${unit}`;
}

/** @param {number} bytes the unit that suits them, and its bytes */
export function unitOf(bytes) {
  const power = bytes === 0 ? 0 : Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return { unit: ['B', 'KiB', 'MiB', 'GiB'][power] ?? 'B', size: 1024 ** power };
}
