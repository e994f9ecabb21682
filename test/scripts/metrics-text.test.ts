import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseMetrics, total, valueOfSeries } from '../../scripts/metrics/text.ts';

describe('a page of metrics', () => {
  const samples = parseMetrics(`# HELP a_total Things.
# TYPE a_total counter
a_total{engine="x",outcome="applied \\"late\\""} 3
a_total{engine="y",outcome="stale"} 4e2
vllm:b 0.5
c_bucket{le="+Inf"} 7 1700000000
`);

  test('gives names, labels and values', () => {
    assert.equal(samples.length, 4);
    assert.deepEqual(samples[0], { name: 'a_total', labels: { engine: 'x', outcome: 'applied \\"late\\"' }, value: 3 });
    assert.deepEqual(samples[3], { name: 'c_bucket', labels: { le: '+Inf' }, value: 7 });
  });

  test('is added up over labels', () => {
    assert.equal(total(samples, 'a_total'), 403);
    assert.equal(total(samples, 'a_total', { engine: 'y' }), 400);
    assert.equal(total(samples, 'vllm:b'), 0.5);
    assert.equal(total(samples, 'missing'), 0);
  });

  test('gives one series, with all its labels in any order', () => {
    assert.equal(valueOfSeries(samples, 'a_total{outcome="stale",engine="y"}'), 400);
    assert.equal(valueOfSeries(samples, 'vllm:b'), 0.5);
    assert.equal(valueOfSeries(samples, 'a_total{engine="y"}'), undefined);
    assert.equal(valueOfSeries(samples, 'a_total'), undefined);
    assert.throws(() => valueOfSeries(samples, '{engine="y"}'), /not the name of a series/);
  });
});
