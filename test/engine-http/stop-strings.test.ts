import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { StopStrings } from '../../engine/http/stop-strings.ts';

const run = (stops: string[], pieces: string[], include = false) => {
  const matcher = new StopStrings(stops, include);
  const released = pieces.map((text) =>
    matcher
      .push({ channel: 'content', text })
      .map((piece) => piece.text)
      .join(''),
  );
  return {
    released,
    rest: matcher
      .flush()
      .map((piece) => piece.text)
      .join(''),
    matched: matcher.matched,
  };
};

describe('stop strings', () => {
  it('hold back what could be the start of one, and let it out when it is not', () => {
    assert.deepEqual(run(['abc'], ['xab', 'y', 'z']), { released: ['x', 'aby', 'z'], rest: '', matched: undefined });
  });

  it('are found across pieces, and nothing comes after them', () => {
    assert.deepEqual(run(['abc'], ['xa', 'b', 'cd', 'e']), { released: ['x', '', '', ''], rest: '', matched: 'abc' });
  });

  it('stay in the text when asked', () => {
    assert.deepEqual(run(['ab'], ['xa', 'by'], true).released, ['x', 'ab']);
  });

  it('that come first in the text win over those named first', () => {
    assert.equal(run(['late', 'early'], ['an early and a late one']).matched, 'early');
  });

  it('let out at the end what was held back', () => {
    assert.deepEqual(run(['abc'], ['xab']), { released: ['x'], rest: 'ab', matched: undefined });
  });

  it('keep apart what belongs to reasoning and to content', () => {
    const matcher = new StopStrings(['ab!'], false);
    assert.deepEqual(matcher.push({ channel: 'reasoning', text: 'xa' }), [{ channel: 'reasoning', text: 'x' }]);
    assert.deepEqual(matcher.push({ channel: 'content', text: 'b' }), []);
    assert.deepEqual(matcher.push({ channel: 'content', text: 'c' }), [
      { channel: 'reasoning', text: 'a' },
      { channel: 'content', text: 'b' },
      { channel: 'content', text: 'c' },
    ]);
  });

  it('let out all of a text without them, and never one of them, however the text is cut into pieces', () => {
    const letters = fc.constantFrom('a', 'b', 'c');
    const text = fc.array(fc.string({ unit: letters, maxLength: 4 }), { maxLength: 12 });
    const stops = fc.array(fc.string({ unit: letters, minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(text, stops, (pieces, stop) => {
        const whole = pieces.join('');
        const places = stop.map((one) => whole.indexOf(one)).filter((at) => at !== -1);
        const { released, rest } = run(stop, pieces);
        const found = released.join('') + rest;
        if (places.length === 0) assert.equal(found, whole);
        else assert.ok(whole.startsWith(found) && !stop.some((one) => found.includes(one)));
      }),
    );
  });
});
