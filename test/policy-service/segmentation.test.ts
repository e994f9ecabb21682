import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Segmentation } from '../../policy-service/request/segmentation.ts';

suite('the segments of a request', () => {
  test('are those of the middles of its blocks; a start that comes late moves no block', () => {
    const segmentation = new Segmentation(16, 2);
    segmentation.add([40], 64);
    segmentation.assign(4);
    segmentation.add([41], 96);
    segmentation.assign(6);
    // The middles of blocks 2 to 5 are 40, 56, 72 and 88.
    assert.deepEqual([...segmentation.ofBlocks!.subarray(2, 6)], [1, 1, 2, 2]);
  });

  test('do not start beyond its tokens', () => {
    const segmentation = new Segmentation(16, 0);
    segmentation.add([10, 33, 32], 32);
    assert.deepEqual(segmentation.starts, [10, 32]);
  });

  test('are unknown before the first start', () => {
    const segmentation = new Segmentation(16, 0);
    segmentation.assign(4);
    assert.equal(segmentation.ofBlocks, undefined);
  });

  test('are at most 4,096, the newest', () => {
    const segmentation = new Segmentation(16, 0);
    for (let start = 0; start < 5_000; start += 1) segmentation.add([start], start);
    assert.equal(segmentation.starts.length, 4096);
    assert.equal(segmentation.starts[0], 904);
    assert.equal(segmentation.starts.at(-1), 4999);
  });
});
