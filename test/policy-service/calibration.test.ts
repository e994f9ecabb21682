import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import fc from 'fast-check';
import pino from 'pino';
import { createCalibrationCache } from '../../policy-service/calibration/cache.ts';
import { chooseGroups } from '../../policy-service/calibration/choose.ts';
import { CalibrationSample, type Rows } from '../../policy-service/calibration/sample.ts';
import { linearMass } from '../../policy-service/measure/masses.ts';
import { MeasuredGroups } from '../../policy-service/measure/measured-groups.ts';
import { BlockTable } from '../../policy-service/request/block-table.ts';
import { ProbeRun } from '../../policy-service/request/probe.ts';
import { FinishReason, Reject } from '../../proto/gen/crystalkv/v1/policy.ts';
import { engineFor, metric, row, type ScriptedEngine, serviceFor, started } from './scripted-engine.ts';

const options = { groups: 2, answerWeight: 0.3 };

/** One snapshot: `history(group, block)` is what a group says of a block, `read` whether it was read later. */
function snapshot(groups: number, read: number[], history: (group: number, block: number) => number): Rows {
  const all = read.flatMap((_, block) => Array.from({ length: groups }, (__, group) => history(group, block)));
  return {
    groups,
    snapshots: [0, read.length],
    history: Float32Array.from(all),
    probed: new Float32Array(all.length),
    read: Uint8Array.from(read),
  };
}

test('the head groups that tell what is read later are chosen', async () => {
  const read = [0, 1, 0, 0, 1, 0, 1, 0];
  // Group 3 knows half of it, group 5 the other half, group 1 the opposite; the others nothing.
  const rows = snapshot(6, read, (group, block) => {
    if (group === 3) return block < 4 ? read[block]! : 0.5;
    if (group === 5) return block >= 4 ? read[block]! : 0.5;
    return group === 1 ? 1 - read[block]! : 0.1;
  });
  const choice = await chooseGroups([rows], options);
  assert.deepEqual(choice?.groups, [3, 5]);
  assert.equal(choice.quality, 1);
  assert.ok(choice.qualityOfAll < 1);
});

test('what probes found counts beside what the reasoning read', async () => {
  const rows = snapshot(3, [1, 0, 0, 1], () => 0.1);
  const probed = Float32Array.from([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
  assert.deepEqual((await chooseGroups([{ ...rows, probed }], { ...options, groups: 1 }))?.groups, [1]);
});

test('nothing is chosen where nothing can be told', async () => {
  assert.equal(await chooseGroups([snapshot(3, [0, 0, 0], () => 1)], options), undefined);
  assert.equal(await chooseGroups([snapshot(3, [1, 1], () => 1)], options), undefined);
});

test('whatever was measured, the choice is as many different groups as were asked for, and never better than right', async () => {
  const measured = fc.integer({ min: 1, max: 6 }).chain((groups) =>
    fc.record({
      groups: fc.constant(groups),
      read: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 2, maxLength: 12 }),
      seed: fc.integer(),
    }),
  );
  await fc.assert(
    fc.asyncProperty(measured, fc.integer({ min: 1, max: 8 }), async ({ groups, read, seed }, wanted) => {
      const rows = snapshot(groups, read, (group, block) => Math.abs(Math.sin(seed + group * 31 + block * 7)));
      const choice = await chooseGroups([rows, rows], { groups: wanted, answerWeight: 0.3 });
      assert.equal(choice === undefined, new Set(read).size < 2);
      if (choice === undefined) return;
      assert.equal(new Set(choice.groups).size, Math.min(wanted, groups));
      assert.ok(choice.groups.every((group) => group >= 0 && group < groups));
      assert.ok(choice.quality >= 0 && choice.quality <= 1);
      if (wanted >= groups) assert.ok(Math.abs(choice.quality - choice.qualityOfAll) < 1e-9);
    }),
  );
});

test('a sample holds the mean of each group since the birth, its probes, and what was read after the snapshot', () => {
  const table = new BlockTable({ blockSize: 16, promptTokens: 16, sinkTokens: 0, recentTokens: 16 });
  const sample = new CalibrationSample(2);
  const columns = 6;
  table.advance(columns * 16);
  const codes = new Uint8Array(2 * columns).fill(31);
  codes[1] = 0;
  codes[columns + 2] = 4;
  const run = new ProbeRun(1, 48, [], 16, 0.1, 2);
  assert.ok(run.add(Uint8Array.from([31, 31, 2, 31, 31, 31, 31, 6]), 64, new MeasuredGroups(2)));
  sample.fold(run, 0.5);
  sample.observe(codes, columns, 1, table);
  // Blocks 1 to 4 may leave; block 2 is read later, block 3 was read before.
  const rows = sample.rows((block) => (block === 2 ? 200 : block === 3 ? 90 : 0));
  assert.deepEqual([...rows.snapshots], [0, 4]);
  assert.deepEqual([...rows.read], [0, 1, 0, 0]);
  const close = (values: Float32Array, wanted: number[]) => {
    for (const [i, value] of wanted.entries()) assert.ok(Math.abs(values[i]! - value) < 1e-6, `${i}: ${values[i]}`);
  };
  close(rows.history, [linearMass(0), 0, 0, linearMass(4), 0, 0, 0, 0]);
  close(rows.probed, [0, 0, linearMass(2), 0, 0, 0, 0, 0]);
});

suite('calibration of an attached engine', () => {
  let folder: string;
  const lines: string[] = [];
  const logger = pino({ level: 'warn' }, { write: (line: string) => lines.push(line) });

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'crystal-kv-calibration-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const GROUPS = 3;
  const geometry = { model: 'scripted', layers: 1, headGroups: GROUPS };
  const profiles = { default: { policy: 'crystal', controller: { type: 'fixed', budget_tokens: 64 } } };
  const service = () => ({ calibration: { mode: 'auto', groups: 1, requests: 1, cache_dir: folder } });

  /** Group 2 alone looks at block 3 all the time, which the answer reads in the end. */
  const codes = (columns: number, groups: number, last = false) => {
    const all = Buffer.alloc(groups * columns, 31);
    for (let group = 0; group < groups; group += 1) all[group * columns + columns - 1] = 2;
    all[(groups - 1) * columns + 3] = last ? 0 : 10;
    return all;
  };

  /** Seven steps of a request that keeps its whole cache. */
  async function keepAll(engine: ScriptedEngine): Promise<void> {
    engine.start(started(1));
    for (let step = 1; step <= 7; step += 1) {
      const columns = 10 + step;
      const plan = await engine.step(step, [row(1, columns * 16, { masses: codes(columns, GROUPS, step === 7) })]);
      assert.deepEqual(
        plan.requests.flatMap(({ evict }) => evict),
        [],
        'it keeps its whole cache',
      );
    }
  }

  const finish = (engine: ScriptedEngine, reason: FinishReason) =>
    engine.send({ $case: 'finished', value: { handle: 1, reason, generatedTokens: 240, probeTokens: 0 } });

  test('all groups are measured on a request that keeps everything, then the best, and a restart knows it', async (context) => {
    const server = await serviceFor(context, service(), profiles);
    const engine = engineFor(context, server.address);
    const first = await engine.greet({ headGroups: GROUPS });
    assert.deepEqual(first.headGroups, []);
    await keepAll(engine);
    assert.equal(await metric(server, 'crystalkv_requests', { mode: 'canary' }), 1);
    finish(engine, FinishReason.FINISH_REASON_STOP);
    assert.deepEqual((await engine.receive('configure')).headGroups, [2]);
    // A step that was under way still has all groups, the next one the chosen one alone; then blocks go.
    engine.start(started(2));
    await engine.step(8, [row(2, 96, { masses: codes(6, GROUPS) })]);
    await engine.step(9, [row(2, 97, { masses: codes(7, 1) })]);
    assert.equal(await metric(server, 'crystalkv_bad_messages_total'), 0);
    assert.ok((await engine.step(10, [row(2, 160, { masses: codes(10, 1) })])).requests[0]!.evict.length > 0);

    const restarted = engineFor(context, (await serviceFor(context, service(), profiles)).address);
    assert.deepEqual((await restarted.greet({ headGroups: GROUPS })).headGroups, [2]);
  });

  test('an aborted request says nothing: the next one is sampled in its place', async (context) => {
    const calibration = { ...service().calibration, cache_dir: join(folder, 'aborted') };
    const engine = engineFor(context, (await serviceFor(context, { calibration }, profiles)).address);
    await engine.greet({ headGroups: GROUPS });
    await keepAll(engine);
    finish(engine, FinishReason.FINISH_REASON_ABORT);
    engine.start(started(2));
    const plan = await engine.step(8, [row(2, 160, { masses: codes(10, GROUPS) })]);
    assert.deepEqual(plan.requests[0]?.evict, [], 'it keeps its whole cache');
  });

  test('a request that the engine has forgotten is no sample: the next one is sampled in its place', async (context) => {
    const calibration = { ...service().calibration, cache_dir: join(folder, 'forgotten') };
    const engine = engineFor(context, (await serviceFor(context, { calibration }, profiles)).address);
    await engine.greet({ headGroups: GROUPS });
    engine.start(started(1));
    const plan = await engine.step(1, [row(1, 160, { masses: codes(10, GROUPS) })]);
    engine.ack(plan, [{ rejected: [{ reason: Reject.REJECT_UNKNOWN_REQUEST, blocks: [] }] }]);
    engine.start(started(2));
    const next = await engine.step(2, [row(2, 160, { masses: codes(10, GROUPS) })]);
    assert.deepEqual(next.requests[0]?.evict, [], 'it keeps its whole cache');
  });

  test('a file that is malformed, of another model or names groups that do not exist is logged and not used', async () => {
    const cache = createCalibrationCache(folder, logger as never);
    const known = cache.load(geometry);
    assert.deepEqual(known?.groups, [2]);
    assert.equal(cache.load({ ...geometry, model: 'never seen' }), undefined);
    assert.equal(lines.length, 0);
    const [file] = readdirSync(folder);
    const whole = readFileSync(join(folder, file!), 'utf8');
    const broken = [
      whole.slice(0, -20),
      whole.replace('"scripted"', '"another"'),
      JSON.stringify({ ...known, groups: [7] }),
      JSON.stringify({ ...known, groups: [1, 1] }),
      '[]',
    ];
    for (const [i, text] of broken.entries()) {
      writeFileSync(join(folder, file!), text);
      assert.equal(cache.load(geometry), undefined, text);
      assert.equal(lines.length, i + 1);
    }
  });

  test('a folder that cannot be written is logged, and calibration goes on without it', async () => {
    const blocked = join(folder, 'file');
    writeFileSync(blocked, '');
    const before = lines.length;
    await createCalibrationCache(blocked, logger as never).save(geometry, {
      groups: [0],
      quality: 1,
      quality_of_all: 1,
      requests: 1,
    });
    assert.equal(lines.length, before + 1);
  });

  test('is off by default: no request is shadowed for it', async (context) => {
    const engine = engineFor(context, (await serviceFor(context, {}, profiles)).address);
    await engine.greet({ headGroups: GROUPS });
    engine.start(started(1));
    assert.ok((await engine.step(1, [row(1, 160, { masses: codes(10, GROUPS) })])).requests[0]!.evict.length > 0);
  });
});
