/** @import { Run } from './run.js' */
/** @import { Reading } from './reading.js' */

/**
 * How it went, in one sentence; and below each request what it kept.
 *
 * @param {{ run: Run, reading: Reading }[]} own the full cache first when there are two
 */
export function verdict(own) {
  for (const { run, reading } of own) reading.setResult(resultOf(run, reading.expected));
  const failed = own.find(({ run }) => run.state === 'failed');
  if (failed !== undefined) return `Failed: ${failed.run.error}`;
  if (own.some(({ run }) => run.state === 'stopped')) return 'Stopped.';
  const [first, second] = own;
  if (first === undefined) return '';
  if (second === undefined) return `Answered: ${first.run.answer || 'nothing'}.`;
  const same = first.run.answer === second.run.answer;
  const [full, kept] = [first.run.frames.last?.blocks, second.run.frames.last?.resident];
  const less =
    full === undefined || kept === undefined ? '' : `, with ${kept} blocks in memory at the end instead of ${full}`;
  return same ? `The same answer as with the full cache${less}.` : `Not the same answer as with the full cache${less}.`;
}

/**
 * @param {Run} run
 * @param {string | undefined} expected
 */
function resultOf(run, expected) {
  if (run.state !== 'done') return '';
  const frame = run.frames.last;
  const parts = [];
  if (expected !== undefined)
    parts.push(run.answer === expected ? 'All values are right.' : 'Not all values are right.');
  if (frame !== undefined) {
    const percent = Math.round((100 * frame.evicted) / Math.max(1, frame.blocks));
    parts.push(`${frame.evicted} of ${frame.blocks} blocks were given back (${percent} %).`);
    if (frame.probes > 0) parts.push(`Trial answers took ${frame.probeTokens} tokens.`);
  }
  return parts.join(' ');
}
