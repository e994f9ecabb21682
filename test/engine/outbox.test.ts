import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_MESSAGES, MAX_STEPS, Outbox } from '../../engine/outbox.ts';
import type { Report } from '../../engine/types.ts';

const step = (number: number, more = false): Report => ({
  $case: 'step',
  value: { step: BigInt(number), pool: undefined, requests: [], more },
});
const preempted = (handle: number): Report => ({ $case: 'preempted', value: { handle, epoch: 1 } });

/** Numbers of the waiting steps, one for each message, and `p` for a preemption. */
function taken(outbox: Outbox): (number | string)[] {
  const names: (number | string)[] = [];
  for (let report = outbox.take(); report !== undefined; report = outbox.take()) {
    names.push(report.$case === 'step' ? Number(report.value.step) : report.$case.slice(0, 1));
  }
  return names;
}

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

test('messages leave in the order in which they came', () => {
  const outbox = new Outbox();
  for (const report of [step(1), preempted(1), step(2)]) assert.ok(outbox.put(report));
  assert.deepEqual(taken(outbox), [1, 'p', 2]);
});

test('one step too many pushes the oldest out; other messages stay in their places', () => {
  const outbox = new Outbox();
  outbox.put(preempted(1));
  for (const number of range(1, MAX_STEPS)) outbox.put(step(number));
  outbox.put(preempted(2));
  assert.equal(outbox.droppedSteps, 0);
  outbox.put(step(MAX_STEPS + 1));
  outbox.put(step(MAX_STEPS + 2));
  assert.equal(outbox.droppedSteps, 2);
  assert.deepEqual(taken(outbox), ['p', ...range(3, MAX_STEPS), 'p', MAX_STEPS + 1, MAX_STEPS + 2]);
});

test('other messages take no room from steps', () => {
  const outbox = new Outbox();
  for (const number of range(1, MAX_STEPS)) {
    outbox.put(preempted(number));
    outbox.put(step(number));
  }
  assert.equal(outbox.droppedSteps, 0);
});

test('a step in several messages counts once and is dropped whole', () => {
  const outbox = new Outbox();
  for (const number of range(1, MAX_STEPS)) for (const more of [true, true, false]) outbox.put(step(number, more));
  assert.equal(outbox.droppedSteps, 0);
  outbox.put(step(MAX_STEPS + 1, true));
  outbox.put(step(MAX_STEPS + 1));
  assert.equal(outbox.droppedSteps, 1);
  assert.deepEqual(taken(outbox).slice(0, 4), [2, 2, 2, 3]);
});

test('what waits of a step is dropped although its first message has left', () => {
  const outbox = new Outbox();
  for (const more of [true, true, false]) outbox.put(step(1, more));
  outbox.take();
  for (const number of range(2, MAX_STEPS + 1)) outbox.put(step(number));
  assert.equal(outbox.droppedSteps, 1);
  assert.deepEqual(taken(outbox), range(2, MAX_STEPS + 1));
});

test('a step that was taken makes room for another', () => {
  const outbox = new Outbox();
  for (const number of range(1, 3 * MAX_STEPS)) {
    outbox.put(step(number));
    outbox.take();
  }
  for (const number of range(1, MAX_STEPS)) outbox.put(step(number));
  assert.equal(outbox.droppedSteps, 0);
});

test('too many messages are refused, but never a step; a cleared outbox begins anew and goes on counting', () => {
  const outbox = new Outbox();
  for (const number of range(1, MAX_STEPS + 1)) outbox.put(step(number));
  for (let i = MAX_STEPS; i < MAX_MESSAGES; i++) assert.ok(outbox.put(preempted(i)));
  assert.equal(outbox.put(preempted(1)), false);
  assert.equal(outbox.put(step(MAX_STEPS + 2)), true);
  outbox.clear();
  for (const number of range(1, MAX_STEPS)) assert.ok(outbox.put(step(number)));
  assert.equal(outbox.droppedSteps, 2);
  assert.deepEqual(taken(outbox), range(1, MAX_STEPS));
});
