import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createAdaptiveController } from '../../policy-service/controllers/adaptive.ts';
import type { Controller, Member, Pool } from '../../policy-service/controllers/controller.ts';
import { demandOf } from '../../policy-service/controllers/demand.ts';
import { createRatioController } from '../../policy-service/controllers/ratio.ts';
import { BlockTable } from '../../policy-service/request/block-table.ts';

const POOL: Pool = { freeBlocks: 50, totalBlocks: 100, waiting: 0, promisedBlocks: 0 };

/** A request with a prompt of two blocks of 16 whose newest two blocks are protected, and whose demand can be set. */
class Request implements Member {
  readonly table = new BlockTable({ blockSize: 16, promptTokens: 32, sinkTokens: 0, recentTokens: 32 });
  readonly budgetBlocks = undefined;
  readonly isAnswering = false;
  readonly merges = false;
  wants = 1;

  readonly ranking = { comparableValues: () => 0, demand: () => this.wants };

  /** Computes a block more and gives away what the controller says. Returns how many output blocks are held then. */
  grow(controller: Controller): number {
    const { table } = this;
    table.advance(Math.max(table.tokens, 32) + 16);
    const quotas: number[] = [];
    controller.quotas([this], POOL, quotas);
    const blocks = new Int32Array(table.liveCount);
    const count = table.candidates(blocks);
    table.markHoles(Array.from(blocks.subarray(0, Math.min(count, quotas[0]!))));
    return table.outputBlocksAt(table.tokens + 1);
  }
}

test('ratio: a request holds its share of what it generated, and at least the floor', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.05, max: 1, noNaN: true }),
      fc.integer({ min: 64, max: 400 }),
      fc.integer({ min: 1, max: 120 }),
      (share, floorTokens, blocks) => {
        const request = new Request();
        const controller = createRatioController({ share, floorTokens });
        const floor = Math.ceil(floorTokens / 16);
        for (let i = 1; i <= blocks; i += 1) {
          const held = request.grow(controller);
          // the block that the next token begins counts
          const wanted = Math.max(floor, Math.ceil(share * (i + 1)));
          assert.equal(held, Math.min(i + 1, wanted));
        }
      },
    ),
  );
});

test('ratio: a whole share never evicts', () => {
  const request = new Request();
  const controller = createRatioController({ share: 1, floorTokens: 1 });
  for (let i = 1; i <= 50; i += 1) assert.equal(request.grow(controller), i + 1);
  assert.equal(controller.expectsEviction(request, POOL, 4096), false);
});

const adaptive = { cover: 0.9, damping: 0.3, hysteresis: 0.05, floorTokens: 64 };

test('adaptive: a steady demand is approached from above and then held', () => {
  fc.assert(
    fc.property(fc.double({ min: 0.2, max: 0.9, noNaN: true }), (wants) => {
      const request = new Request();
      request.wants = wants;
      const controller = createAdaptiveController(adaptive);
      for (let i = 1; i <= 200; i += 1) {
        const held = request.grow(controller);
        const evictable = request.table.last - request.table.first;
        assert.ok(held >= Math.min(i + 1, Math.ceil(wants * evictable)), `${held} of ${evictable}`);
      }
      const evictable = request.table.last - request.table.first;
      const held = request.table.liveEvictable;
      assert.ok(held <= (wants + adaptive.hysteresis) * evictable + 1, `${held} of ${evictable}`);
    }),
  );
});

test('adaptive: a demand that jumps up and down at every block does not swing the budget', () => {
  const request = new Request();
  const controller = createAdaptiveController({ ...adaptive, hysteresis: 0.2 });
  for (let i = 1; i <= 60; i += 1) request.grow(controller);
  const shares: number[] = [];
  for (let i = 1; i <= 60; i += 1) {
    request.wants = i % 2 === 0 ? 0.4 : 0.6;
    request.grow(controller);
    if (i > 20) shares.push(request.table.liveEvictable / (request.table.last - request.table.first));
  }
  assert.ok(Math.max(...shares) - Math.min(...shares) < 0.1, `${Math.min(...shares)} to ${Math.max(...shares)}`);
});

test('adaptive: nobody falls below the floor, and nothing goes before there is more than that', () => {
  const request = new Request();
  request.wants = 0.01;
  const controller = createAdaptiveController(adaptive);
  for (let i = 1; i <= 100; i += 1) assert.ok(request.grow(controller) >= Math.min(i + 1, 4));
  assert.equal(controller.expectsEviction(new Request(), POOL, 16), false);
});

test('a demand is the share of blocks that hold the cover of the value', () => {
  assert.equal(demandOf('value', Float64Array.of(0, 8, 1, 1), 0.8), 0.25);
  assert.equal(demandOf('value', Float64Array.of(0, 8, 1, 1), 0.9), 0.5);
  assert.equal(demandOf('value', Float64Array.of(0, 0), 0.9), 1);
  assert.equal(demandOf('value', new Float64Array(0), 0.9), 1);
  assert.equal(demandOf('equal', Float64Array.of(1, 2, 3, 4), 0.5), 0.5);
  // logarithms: the first is worth more than all others
  assert.equal(demandOf('exp', Float64Array.of(1000, 10, 10, 10), 0.9), 0.25);
});
