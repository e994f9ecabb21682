import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reporter } from '../../engine/core/reporter.ts';
import { Sequence } from '../../engine/core/sequence.ts';
import type { Report } from '../../engine/types.ts';
import { ProbeAnswer } from '../../proto/gen/crystalkv/v1/policy.ts';
import { attached } from './attached.ts';
import { request } from './scripted-model.ts';

/** Bytes of masses in each entry of a request. */
function massSizes(messages: readonly Report[], handle: number): number[] {
  const entries = messages.flatMap((message) => (message.$case === 'step' ? message.value.requests : []));
  return entries.filter((entry) => entry.handle === handle).map(({ masses }) => masses.length);
}

test('only the head groups that were asked for are measured', () => {
  const { core, messages, run } = attached();
  core.configure({ headGroups: [1], measureEvery: 1, probeTokens: 4, statistics: undefined });
  core.submit(request('a', 16, { maxTokens: 12 }));
  run(3);
  assert.deepEqual(massSizes(messages, 1), [2, 3, 3]);
});

test('every n-th step of the engine is measured, for all requests together', () => {
  const { core, messages, run } = attached();
  core.configure({ headGroups: [1], measureEvery: 3, probeTokens: 4, statistics: undefined });
  core.submit(request('a', 16, { maxTokens: 12 }));
  run(1);
  core.submit(request('b', 16, { maxTokens: 12 }));
  run(9);
  assert.deepEqual(massSizes(messages, 1), [0, 0, 3, 0, 0, 3, 0, 0, 3, 0]);
  assert.deepEqual(massSizes(messages, 2), [0, 3, 0, 0, 3, 0, 0, 3, 0]);
});

test('in lockstep each request is measured at every n-th of its own tokens, in any company', () => {
  const { core, messages, run } = attached({ lockstepTimeoutMs: 1000 });
  core.configure({ headGroups: [1], measureEvery: 3, probeTokens: 4, statistics: undefined });
  core.submit(request('a', 16, { maxTokens: 12 }));
  run(1);
  core.submit(request('b', 16, { maxTokens: 12 }));
  run(9);
  assert.deepEqual(massSizes(messages, 1), [2, 0, 0, 3, 0, 0, 3, 0, 0, 4]);
  assert.deepEqual(massSizes(messages, 2), [2, 0, 0, 3, 0, 0, 3, 0, 0]);
});

test('with a head group that the model does not have, nothing is measured and nothing probed', () => {
  const { core, messages, run, plan } = attached();
  core.configure({ headGroups: [0, 2], measureEvery: 1, probeTokens: 4, statistics: undefined });
  core.submit(request('a', 16));
  run(12);
  assert.ok(massSizes(messages, 1).every((size) => size === 0));
  assert.equal(plan({ probe: true }).requests[0]?.probe, ProbeAnswer.PROBE_ANSWER_UNSUPPORTED);
});

test('each segment of a request is reported once, those of a probe never', () => {
  const { core, messages, run, plan } = attached({ segmentMarkers: [7] });
  core.submit(request('a', 10));
  run(38);
  // the probe writes a marker at position 51 too
  plan({ probe: true });
  run(12);
  const entries = messages.flatMap((message) => (message.$case === 'step' ? message.value.requests : []));
  const starts = (handle: number) => entries.flatMap((entry) => (entry.handle === handle ? entry.segmentStarts : []));
  assert.deepEqual(starts(1), [16, 28, 40, 52]);
  assert.deepEqual(starts(2), []);
});

test('a step with more than 3 MiB of masses is sent in several messages, all but the last with `more`', () => {
  const sent: Report[] = [];
  const reporter = new Reporter(1, false, (report) => sent.push(report));
  reporter.attach({ headGroups: [], measureEvery: 1, probeTokens: 0, statistics: undefined }, []);
  const pool = { freeBlocks: 1, totalBlocks: 1, waiting: 0, running: 4, preemptions: 0n };
  const entries = [1, 2, 3, 4].map((handle) => ({
    sequence: new Sequence(handle, request(`r${handle}`, 4)),
    masses: new Uint8Array(1.4 * 2 ** 20),
  }));
  reporter.step(7, pool, entries);
  const steps = sent.flatMap((report) => (report.$case === 'step' ? [report.value] : []));
  assert.deepEqual(
    steps.map(({ step, requests, more }) => [step, requests.map(({ handle }) => handle), more]),
    [
      [7n, [1, 2], true],
      [7n, [3, 4], false],
    ],
  );
});
