import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { createMetrics } from '../../policy-service/observe/metrics.ts';
import { createUnknownProfiles } from '../../policy-service/session/unknown-profiles.ts';

test('unknown profiles are counted each time, logged once, cut, and at most a hundred of them', async () => {
  const lines: { profile: string }[] = [];
  const logger = pino({}, { write: (line: string) => lines.push(JSON.parse(line)) });
  const metrics = createMetrics(() => []);
  const onUnknownProfile = createUnknownProfiles(metrics, logger as never);
  for (const name of ['fast', 'fast', 'x'.repeat(1000)]) onUnknownProfile(name);
  assert.deepEqual(
    lines.map(({ profile }) => profile),
    ['fast', 'x'.repeat(64)],
  );
  for (let i = 0; i < 200; i += 1) onUnknownProfile(`name ${i}`);
  assert.equal(lines.length, 100);
  assert.equal((await metrics.unknownProfiles.get()).values[0]?.value, 203);
});
