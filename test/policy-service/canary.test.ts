import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { settingsOf } from '../../policy-service/config.ts';
import { governanceOf, isCanary } from '../../policy-service/request/governance.ts';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { Mode } from '../../proto/gen/crystalkv/v1/policy.ts';
import { masses, metric, row, scriptedEngines, started, startService, testConfig } from './scripted-engine.ts';

const profile = (canary_share: number, mode = 'enforce') => {
  return { policy: 'window', mode, canary_share, controller: { type: 'fixed', budget_tokens: 96 } };
};

const profiles = {
  default: profile(1),
  pool: { policy: 'window', canary_share: 0.5, controller: { type: 'pressure', floor_tokens: 32, floor_share: 0 } },
};

suite('canaries', () => {
  let server: PolicyServer;
  const another = scriptedEngines(() => server);

  before(async () => {
    server = await startService({}, profiles);
  });
  after(() => server.close());

  test('a share of the ids is chosen, always the same ones, and more of them for a larger share', () => {
    const ids = Array.from({ length: 4000 }, (_, i) => `request-${i}`);
    const chosen = ids.filter((id) => isCanary(id, 0.1));
    assert.ok(chosen.length > 300 && chosen.length < 500, `${chosen.length}`);
    for (const id of chosen) assert.ok(isCanary(id, 0.1) && isCanary(id, 0.2) && isCanary(id, 1));
    assert.equal(ids.filter((id) => isCanary(id, 0)).length, 0);
  });

  test('are only those that leave it to a profile which enforces', () => {
    const settings = settingsOf(testConfig({}, { default: profile(1), off: profile(1, 'off'), none: profile(0) }));
    const governed = (profileName: string, mode: Mode = Mode.MODE_UNSPECIFIED) => {
      const { mode: got, canary } = governanceOf({ options: { profile: profileName, mode }, canaryKey: 'x' }, settings);
      return { mode: got, canary };
    };
    assert.deepEqual(governed(''), { mode: 'shadow', canary: true });
    assert.deepEqual(governed('', Mode.MODE_ENFORCE), { mode: 'enforce', canary: false });
    assert.deepEqual(governed('', Mode.MODE_SHADOW), { mode: 'shadow', canary: false });
    assert.deepEqual(governed('off'), { mode: 'off', canary: false });
    assert.deepEqual(governed('none'), { mode: 'enforce', canary: false });
  });

  test('keep everything, and what it would have cost is counted apart from that of shadow mode', async () => {
    const engine = another();
    await engine.greet({ engineId: 'canaries' });
    engine.start(started(1));
    engine.start(started(2, { options: { profile: '', mode: Mode.MODE_SHADOW } }));
    const both = (read: number[]) => [1, 2].map((handle) => row(handle, 144, { masses: masses(9, read) }));
    assert.deepEqual((await engine.step(1, both([5]))).requests, []);
    await engine.step(2, [row(1, 144, { masses: masses(9, [2, 5]) }), row(2, 144, { masses: masses(9, [5]) })]);
    assert.equal(await metric(server, 'crystalkv_regret_ratio', { policy: 'window', mode: 'canary' }), 0.5);
    assert.equal(await metric(server, 'crystalkv_regret_ratio', { policy: 'window', mode: 'shadow' }), 0);
    assert.equal(await metric(server, 'crystalkv_shadow_evicted_blocks_total', { mode: 'canary' }), 2);
    assert.equal(await metric(server, 'crystalkv_requests', { engine: 'canaries', mode: 'canary' }), 1);
  });

  test('count among the requests around them when memory is short, and free nothing', async () => {
    const engine = another();
    await engine.greet({ engineId: 'short' });
    const ids = Array.from({ length: 100 }, (_, i) => `id-${i}`);
    const canary = ids.find((id) => isCanary(id, 0.5))!;
    const enforced = ids.find((id) => !isCanary(id, 0.5))!;
    const options = { profile: 'pool', mode: Mode.MODE_UNSPECIFIED };
    engine.start(started(1, { crystalkvId: canary, options }));
    engine.start(started(2, { crystalkvId: enforced, options }));
    const plan = await engine.step(1, [row(1, 352), row(2, 352)], { freeBlocks: 8 });
    // Twelve are needed; the canary stands for half of them.
    assert.deepEqual(
      plan.requests.map(({ handle, evict }) => [handle, evict.length]),
      [[2, 6]],
    );
    engine.obey(plan);
    const next = await engine.step(2, [row(1, 352), row(2, 352)], { freeBlocks: 14 });
    assert.deepEqual(
      next.requests.map(({ handle, evict }) => [handle, evict.length]),
      [[2, 3]],
    );
  });
});
