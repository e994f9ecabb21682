import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../../scripts/until.ts';

describe('until', () => {
  it('gives the first thing that is neither false nor undefined', async () => {
    const answers = [undefined, false, 0, 1];
    assert.equal(await until(() => answers.shift(), 'an answer'), 0);
    assert.equal(await until(async () => 'later', 'an answer'), 'later');
  });

  it('names what did not happen', async () => {
    await assert.rejects(
      until(() => false, 'the end of the world', { ms: 30 }),
      /within 30 ms: the end of the world/,
    );
  });

  it('rejects as the check does', async () => {
    await assert.rejects(
      until(() => {
        throw new Error('it has ended');
      }, 'more'),
      /it has ended/,
    );
  });

  it('is patient for as long as there is progress, and no longer', async () => {
    let count = 0;
    const patience = { ms: 60, progress: () => Math.min(count, 30) };
    assert.equal(await until(() => ++count === 30, 'thirty', patience), true);
    await assert.rejects(
      until(() => ++count === 1000, 'a thousand', patience),
      /within 60 ms: a thousand/,
    );
  });

  it('counts the time that a check takes', async () => {
    let checks = 0;
    const slow = () => new Promise<false>((resolve) => setTimeout(resolve, 40, false)).finally(() => (checks += 1));
    await assert.rejects(until(slow, 'an answer', { ms: 60 }), /within 60 ms/);
    assert.ok(checks <= 2, `${checks}`);
  });
});
