import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { FinishReason, Mode } from '../../proto/gen/crystalkv/v1/policy.ts';
import { until } from '../support/until.ts';
import { metric, row, type ScriptedEngine, scriptedEngines, started, startService } from './scripted-engine.ts';
import { profiles } from './session-profiles.ts';

suite('the figures of requests', () => {
  let server: PolicyServer;
  const another = scriptedEngines(() => server);
  const finish = (engine: ScriptedEngine, handle: number, reason: FinishReason) =>
    engine.send({ $case: 'finished', value: { handle, reason, generatedTokens: 130, probeTokens: 0 } });

  before(async () => {
    server = await startService({}, profiles);
  });
  after(() => server.close());

  test('start at 0, so that a rate sees the first event', async () => {
    const engine = another();
    const labels = { engine: 'fresh' };
    await engine.greet({ engineId: 'fresh', model: 'scripted' });
    engine.start(started(1));
    await engine.step(1, [row(1, 40)]);
    const { text } = await scrape(server);
    for (const line of [
      'crystalkv_plans_total{engine="fresh",outcome="rejected"} 0',
      'crystalkv_rejected_blocks_total{engine="fresh",reason="stale_epoch"} 0',
      'crystalkv_preemptions_total{engine="fresh"} 0',
      'crystalkv_engine_info{engine="fresh",model="scripted"} 1',
      'crystalkv_block_bytes{engine="fresh"} 1000',
    ]) {
      assert.ok(text.includes(`${line}\n`), line);
    }
    assert.match(
      text,
      /^crystalkv_finished_requests_total\{engine="fresh",profile="\w+",policy="\w+",mode="enforce"\} 0$/m,
    );
    assert.equal(await metric(server, 'crystalkv_requests', labels), 1);
  });

  test('of engines that have left stay for the last hundred', async () => {
    const ids = Array.from({ length: 155 }, (_, i) => `passing-${i}`);
    const engines = ids.map(() => another());
    for (const [i, engine] of engines.entries()) {
      await engine.greet({ engineId: ids[i]! });
      engine.start(started(1, { options: { profile: '', mode: Mode.MODE_SHADOW } }));
      await engine.step(1, [row(1, 40)]);
    }
    for (const engine of engines) engine.close();
    let text = '';
    const known = (id: string) => text.includes(`engine="${id}"`);
    const left = async () => {
      text = (await scrape(server)).text;
      return !/stream_up\{engine="passing-\d+"\} 1\n/.test(text) && ids.filter(known).length < ids.length;
    };
    await until(left, 'all have left, and some are forgotten');
    const kept = ids.filter(known).length;
    assert.ok(kept >= 100 && kept < 150, `${kept}`);
    const forgotten = ids.find((id) => !known(id))!;
    const again = another();
    await again.greet({ engineId: forgotten });
    assert.equal(await metric(server, 'crystalkv_stream_up', { engine: forgotten }), 1);
    assert.equal(await metric(server, 'crystalkv_steps_total', { engine: forgotten }), 0);
  });

  test('start at 0 for every counter there is', async () => {
    const engine = another();
    await engine.greet({ engineId: 'every' });
    for (const [handle, mode] of [Mode.MODE_ENFORCE, Mode.MODE_SHADOW].entries()) {
      engine.start(started(handle, { options: { profile: '', mode } }));
    }
    await engine.step(1, [row(0, 40), row(1, 40)]);
    const { text } = await scrape(server);
    const counters = [...text.matchAll(/^# TYPE (crystalkv_\S+) counter$/gm)].map(([, name]) => name as string);
    assert.ok(counters.length > 20);
    for (const name of counters) {
      const ofEngine = new RegExp(`^${name}\\{engine="every".*\\} \\d+$`, 'm');
      const ofService = new RegExp(`^${name}(\\{(reason|outcome)="\\w+"\\})? \\d+$`, 'm');
      assert.ok(ofEngine.test(text) || ofService.test(text), name);
    }
  });

  test('hold the most blocks that a finished request had, beside those of a full cache', async () => {
    const engine = another();
    const labels = { engine: 'peaks' };
    await engine.greet({ engineId: 'peaks' });
    engine.start(started(1));
    engine.obey(await engine.step(1, [row(1, 144)]));
    await engine.step(2, [row(1, 162)]);
    finish(engine, 1, FinishReason.FINISH_REASON_STOP);
    await engine.step(3, []);
    assert.equal(await metric(server, 'crystalkv_finished_requests_total', labels), 1);
    assert.equal(await metric(server, 'crystalkv_finished_tokens_total', labels), 130);
    // 9 blocks before the first eviction of two, 11 without any
    assert.equal(await metric(server, 'crystalkv_peak_blocks_total', labels), 9);
    assert.equal(await metric(server, 'crystalkv_full_peak_blocks_total', labels), 11);
  });

  test('leave out a request that was given up', async () => {
    const engine = another();
    await engine.greet({ engineId: 'aborted' });
    engine.start(started(1));
    await engine.step(1, [row(1, 40)]);
    finish(engine, 1, FinishReason.FINISH_REASON_ABORT);
    await engine.step(2, []);
    assert.equal(await metric(server, 'crystalkv_finished_requests_total', { engine: 'aborted' }), 0);
  });

  test('count a preemption once, whether it is told or seen in a step', async () => {
    const engine = another();
    await engine.greet({ engineId: 'preempting' });
    engine.start(started(1));
    await engine.step(1, [row(1, 64)]);
    engine.send({ $case: 'preempted', value: { handle: 1, epoch: 1 } });
    await engine.step(2, [row(1, 32, { epoch: 1 })]);
    await engine.step(3, [row(1, 16, { epoch: 2 })]);
    assert.equal(await metric(server, 'crystalkv_preemptions_total', { engine: 'preempting' }), 2);
  });
});

async function scrape(server: PolicyServer): Promise<{ text: string }> {
  const response = await fetch(`${server.metricsUrl}/metrics`);
  return { text: await response.text() };
}
