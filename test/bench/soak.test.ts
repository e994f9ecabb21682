import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseMetrics } from '../../bench/metrics-text.ts';
import { count, disagreements, emptyTally } from '../../bench/soak/tally.ts';

describe('the counters of a soak', () => {
  const tally = emptyTally();
  count(tally, { kind: 'complete', status: 200 });
  count(tally, { kind: 'told', status: 200 });
  count(tally, { kind: 'complete', status: 502 });
  count(tally, { kind: 'left' });
  count(tally, { kind: 'left' });
  const page = (lines: readonly string[]) => parseMetrics(lines.map((line) => `crystalkv_gateway_${line}`).join('\n'));
  const good = [
    'requests_total{status="200",outcome="ok"} 2',
    'requests_total{status="200",outcome="broken"} 1',
    'requests_total{status="502",outcome="server_error"} 1',
    'requests_total{status="499",outcome="client_abort"} 1',
    'client_aborts_total{stage="waiting"} 1',
    'broken_streams_total{end="told"} 1',
    'inflight 0',
    'backend_outstanding{backend="x"} 0',
  ];

  test('agree when a client left just as its answer ended', () => {
    assert.deepEqual(disagreements(tally, page(good)), []);
  });

  for (const [what, from, to] of [
    ['a request too few', 'outcome="ok"} 2', 'outcome="ok"} 1'],
    ['an answer that no client saw', 'status="502"', 'status="503"'],
    ['an abort too many', 'client_aborts_total{stage="waiting"} 1', 'client_aborts_total{stage="waiting"} 3'],
    ['a broken stream that was not told', '{end="told"} 1', '{end="told"} 0'],
    ['a request that never ended', 'inflight 0', 'inflight 1'],
  ] as const) {
    test(`disagree over ${what}`, () => {
      const changed = good.map((line) => line.replace(from, to));
      assert.notDeepEqual(changed, good);
      assert.ok(disagreements(tally, page(changed)).length > 0);
    });
  }
});
