import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Sampler } from '../../engine/core/sampler.ts';
import { request } from './scripted-model.ts';

const sampler = (change: Parameters<typeof request>[2]) => new Sampler(request('a', 1, change).sampling);
const logits = Float32Array.from([0, 3, 1, 2.5, -4]);
const draws = (change: Parameters<typeof request>[2], count = 400) => {
  const drawn = sampler(change);
  return Array.from({ length: count }, () => drawn.sample(logits).tokenId);
};

test('temperature 0 takes the likeliest token, the first of equals', () => {
  assert.equal(sampler({}).sample(logits).tokenId, 1);
  assert.equal(sampler({}).sample(Float32Array.from([1, 5, 5])).tokenId, 1);
});

test('a seed repeats the draws, another seed gives others', () => {
  const one = draws({ temperature: 1, seed: 7 });
  assert.deepEqual(draws({ temperature: 1, seed: 7 }), one);
  assert.notDeepEqual(draws({ temperature: 1, seed: 8 }), one);
});

test('top_k and top_p leave only the likeliest tokens, and at least one', () => {
  assert.deepEqual(new Set(draws({ temperature: 1, topK: 2 })), new Set([1, 3]));
  // probabilities are about .54 and .33 for the first two
  assert.deepEqual(new Set(draws({ temperature: 1, topP: 0.8 })), new Set([1, 3]));
  assert.deepEqual(new Set(draws({ temperature: 1, topP: 0.01 })), new Set([1]));
});

test('draws follow the softmax', () => {
  const n = 20_000;
  const weights = Array.from(logits, (x) => Math.exp(x));
  const total = weights.reduce((sum, w) => sum + w);
  const drawn = draws({ temperature: 1, seed: 3 }, n);
  weights.forEach((weight, token) => {
    const p = weight / total;
    const share = drawn.filter((t) => t === token).length / n;
    assert.ok(Math.abs(share - p) < 5 * Math.sqrt((p * (1 - p)) / n) + 1e-3, `token ${token}: ${share}, expected ${p}`);
  });
});

test('log probabilities add up to one and list the likeliest first', () => {
  const vector = fc.array(fc.double({ min: -20, max: 20, noNaN: true }), { minLength: 2, maxLength: 12 });
  fc.assert(
    fc.property(vector, (x) => {
      const { tokenId, logprob } = sampler({ logprobs: x.length }).sample(Float32Array.from(x));
      assert.ok(logprob !== undefined);
      const sum = logprob.top.reduce((total, entry) => total + Math.exp(entry.logprob), 0);
      assert.ok(Math.abs(sum - 1) < 1e-6);
      assert.equal(logprob.top[0]?.tokenId, tokenId);
      assert.equal(logprob.top[0]?.logprob, logprob.logprob);
    }),
  );
});
