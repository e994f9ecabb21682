import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FINISHES, MODES, noneOf, PHASES, PROTOCOL, REJECTS } from '../../common/protocol.ts';
import { Reject } from '../../proto/gen/crystalkv/v1/policy.ts';

// These words are labels of metrics and values of options: a new name in the protocol must not change one.
test('the words of the protocol are what metrics and options have always called its values', () => {
  assert.deepEqual(MODES.words, ['enforce', 'shadow', 'off']);
  assert.deepEqual(PHASES.words, ['prefill', 'thinking', 'answer']);
  assert.deepEqual(FINISHES.words, ['stop', 'length', 'abort', 'dropped']);
  assert.equal(
    REJECTS.words.join(' '),
    'unknown_request stale_epoch protected out_of_range future_step not_resident shared disabled invalid_merge unknown_rule',
  );
});

test("words and values are each other's inverse; what is unspecified or of a later version has no word", () => {
  for (const word of REJECTS.words) assert.equal(REJECTS.word(REJECTS.values[word]), word);
  assert.equal(REJECTS.values.stale_epoch, Reject.REJECT_STALE_EPOCH);
  for (const value of [Reject.REJECT_UNSPECIFIED, Reject.UNRECOGNIZED, 99])
    assert.equal(REJECTS.word(value), undefined);
});

test('the range of versions leaves out the unspecified one', () => {
  assert.deepEqual(PROTOCOL, { min: 1, max: 1 });
});

test('counts begin at 0 for each word', () => {
  assert.deepEqual(noneOf(MODES.words), { enforce: 0, shadow: 0, off: 0 });
});
