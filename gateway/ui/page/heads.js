/** @import { Frame } from './frames.js' */
import { ALL, groupsOf, holds, shareOf } from './held.js';

/** Pixels of a row at most and at least, and of the whole picture. */
const ROW = { max: 16, min: 2, total: 220 };

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number} height CSS pixels
 */
function prepare(canvas, height) {
  const width = Math.max(1, canvas.clientWidth);
  const scale = devicePixelRatio;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext('2d');
  if (context === null) throw new Error('no canvas');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width };
}

/** @param {string} name */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * The whole thought as one line, first token to last: as much of it is filled as is in memory.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Frame | undefined} frame
 * @param {{ promptTokens: number, shown: number, total: number }} tokens generated ones that are shown, and all that came
 */
export function drawStrip(canvas, frame, { promptTokens, shown, total }) {
  const height = 22;
  const { context, width } = prepare(canvas, height);
  if (total === 0) return;
  context.fillStyle = colour('--line');
  context.fillRect(0, height - 1, width, 1);
  context.fillStyle = colour('--accent');
  // Columns of whole pixels: with parts of them, a pattern shows that is not there.
  const pixel = 1 / devicePixelRatio;
  for (let x = 0; x < width; x += pixel) {
    const from = Math.floor((x / width) * total);
    const to = Math.max(from + 1, Math.floor(((x + pixel) / width) * total));
    if (to > shown) return;
    let sum = 0;
    for (let token = from; token < to; token += 1) sum += shareOf(frame, promptTokens + token);
    const tall = (sum / (to - from) / ALL) * (height - 2);
    if (tall > 0) context.fillRect(x, height - 1 - tall, pixel, tall);
  }
}

/**
 * Tokens from left to right, a row for each head of each layer.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Frame | undefined} frame
 * @returns {string} the picture in words
 */
export function drawHeads(canvas, frame) {
  const groups = frame === undefined ? 0 : groupsOf(frame);
  if (frame?.held === undefined || groups === 0) {
    prepare(canvas, 1);
    return '';
  }
  const { held } = frame;
  const row = Math.max(ROW.min, Math.min(ROW.max, Math.floor(ROW.total / groups)));
  const { context, width } = prepare(canvas, groups * row);
  const tokens = Math.max(1, frame.tokens - held.from);
  const step = width / tokens;
  const gap = row > 4 ? 1 : 0;
  let kept = 0;
  context.fillStyle = colour('--accent');
  for (let group = 0; group < groups; group += 1) {
    for (let token = 0, start = -1; token <= tokens; token += 1) {
      const there = token < tokens && holds(held, group, held.from + token);
      if (there) kept += 1;
      if (there && start < 0) start = token;
      if (!there && start >= 0) {
        context.fillRect(start * step, group * row, (token - start) * step, row - gap);
        start = -1;
      }
    }
  }
  const share = Math.round((100 * kept) / (groups * tokens));
  return `${groups} heads in all layers; together they hold ${share} % of what ${tokens} tokens would take.`;
}
