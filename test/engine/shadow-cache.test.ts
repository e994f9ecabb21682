import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readModelConfig } from '../../engine/model/config.ts';
import { LlamaModel } from '../../engine/model/llama.ts';
import type { ShadowCache } from '../../engine/model/shadow-cache.ts';
import type { CountedChunk } from '../../engine/model/step-model.ts';
import { KNOWN_STATISTICS } from '../../engine/model/token-figures.ts';
import { KEPT_STATISTICS } from '../../engine/model/token-statistics.ts';
import { type KeepRule, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';
import { referenceLogits } from './reference-llama.ts';
import { randomWeights, TINY, writeTinyLlama } from './tiny-llama.ts';

const folder = fileURLToPath(new URL('../../model/crystal-mini', import.meta.url));
const BLOCK = 16;
const PROMPT = 24;
const TOKENS = 200;
const tokenIds = Array.from({ length: TOKENS + 40 }, (_, i) => 3 + ((i * 7 + (i >> 3)) % 60));
/** By logical block: the prompt has two, block 4 is a hole in some tests, the last ones stay as they are. */
const MERGES = [
  { into: [3, 5], from: [2], beside: [4, 6, 7, 8, 9, 10, 11] },
  { into: [5, 6, 8], from: [3, 7], beside: [4, 9, 10, 11] },
  { into: [8, 9], from: [5, 10], beside: [4, 6, 11] },
] as const;

const ruleOf = (statistic: Statistic): KeepRule => ({
  stages: [
    { share: 0.5, terms: [{ statistic, weight: 1, scale: Scale.SCALE_RANK, pool: 0 }], sampled: false },
    { share: 1, terms: [{ statistic, weight: 1, scale: Scale.SCALE_UNSPECIFIED, pool: 3 }], sampled: false },
  ],
  seed: 5,
});

/** crystal-mini after TOKENS tokens, all of whose statistics are kept; `hole`: block 4 was evicted on the way. */
function open(hole = false) {
  const config = readModelConfig(folder);
  const model = new LlamaModel(folder, config, BLOCK, 60, 512);
  model.keepStatistics({
    statistics: new Set(KEPT_STATISTICS),
    attentionHalfLifeTokens: 30,
    peakHalfLifeTokens: 50,
  });
  const blocks = Array.from({ length: Math.ceil(tokenIds.length / BLOCK) }, (_, i) => 50 - i);
  const counts: CountedChunk = { position: PROMPT, from: 1, to: Number.POSITIVE_INFINITY, probe: false };
  const feed = (from: number, to: number, shadow?: ShadowCache) => {
    const chunk = { tokenIds: tokenIds.slice(from, to), position: from, blocks, logits: true, measure: true };
    return model.forward([{ ...chunk, counts, shadow }])[0]!;
  };
  feed(0, PROMPT);
  for (let position = PROMPT; position < TOKENS; position++) {
    if (hole && position === 150) blocks[4] = 0;
    feed(position, position + 1);
  }
  const groups = config.layers * config.kvHeads;
  const headOf = (group: number) => [Math.floor(group / config.kvHeads), group % config.kvHeads] as const;
  const resident = (indices: readonly number[]) => indices.map((i) => blocks[i]!).filter((block) => block !== 0);
  const named = ({ into, from, beside }: (typeof MERGES)[number]) => {
    return { into: resident(into), from: resident(from), beside: resident(beside) };
  };
  /** Of the tokens that the output's full blocks really hold. */
  const positions = (group: number) => {
    const [layer, head] = headOf(group);
    return resident([2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).flatMap((block) => [...model.positions(layer, block, head)]);
  };
  return { model, blocks, feed, groups, headOf, named, positions };
}

/** Positions of the marked tokens of a head group, in a cache in which nothing was really merged. */
function markedPositions(shadow: ShadowCache, group: number, blocks: readonly number[]): number[] {
  return shadow
    .marked(group)
    .map((slot) => blocks.indexOf(Math.floor(slot / BLOCK)) * BLOCK + (slot % BLOCK))
    .sort((a, b) => a - b);
}

suite('marks of shadow merges', () => {
  for (const statistic of KNOWN_STATISTICS) {
    const name = Object.entries(Statistic).find(([, value]) => value === statistic)![0];
    for (const hole of [false, true]) {
      test(`are what real merges drop, one after the other, by ${name}${hole ? ', beside a hole' : ''}`, () => {
        const [real, marked] = [open(hole), open(hole)];
        const shadow = marked.model.shadowCache();
        const whole = Array.from({ length: real.groups }, (_, group) => real.positions(group));
        for (const merge of MERGES) {
          real.model.merge(real.named(merge), ruleOf(statistic));
          for (const index of merge.from) real.blocks[index] = 0;
          shadow.merge(marked.named(merge), ruleOf(statistic));
          for (let group = 0; group < real.groups; group++) {
            const stayed = new Set(real.positions(group));
            const dropped = whole[group]!.filter((position) => !stayed.has(position)).sort((a, b) => a - b);
            assert.deepEqual(markedPositions(shadow, group, marked.blocks), dropped, `group ${group}`);
          }
        }
      });
    }
  }

  test('are different in each head, and change nothing in the cache or in what is computed', () => {
    const [stock, marked] = [open(), open()];
    const shadow = marked.model.shadowCache();
    for (const merge of MERGES) shadow.merge(marked.named(merge), ruleOf(Statistic.STATISTIC_DISTINCT_KEYS));
    const marks = Array.from({ length: marked.groups }, (_, group) => String(shadow.marked(group)));
    assert.ok(new Set(marks).size > 1);
    const [one, other] = [stock.feed(TOKENS, TOKENS + 1), marked.feed(TOKENS, TOKENS + 1, shadow)];
    assert.deepEqual(other.logits, one.logits);
    assert.deepEqual(other.masses, one.masses);
    assert.equal(one.shadow, undefined);
    for (const statistic of KEPT_STATISTICS) {
      const [a, b] = [stock, marked].map(({ model }) => model.statistic(statistic, 1, 44, 0));
      assert.deepEqual(a, b);
    }
  });

  test('of an eviction are the tokens that the block would hold by then', () => {
    const { model, blocks, groups, named } = open();
    const shadow = model.shadowCache();
    shadow.merge(named(MERGES[0]), ruleOf(Statistic.STATISTIC_TOTAL));
    const before = Array.from({ length: groups }, (_, group) => new Set(shadow.marked(group)));
    shadow.evict([blocks[3]!, blocks[5]!]);
    for (let group = 0; group < groups; group++) {
      const candidates = [2, 3, 5].flatMap((index) =>
        Array.from({ length: BLOCK }, (_, j) => blocks[index]! * BLOCK + j),
      );
      assert.deepEqual(
        shadow.marked(group),
        candidates.sort((a, b) => a - b),
        'nothing of the three is left',
      );
      assert.equal(before[group]!.size, BLOCK);
    }
    assert.ok(shadow.isGone(blocks[2]!) && shadow.isGone(blocks[3]!) && !shadow.isGone(blocks[4]!));
  });
});

suite('what a query gives to marked tokens', () => {
  for (const hole of [false, true]) {
    test(`is the sum of its attention on each of them${hole ? ', beside a hole' : ''}`, () => {
      const { model, feed, groups, headOf, named } = open(hole);
      const shadow = model.shadowCache();
      shadow.readShare = 0.01;
      for (const merge of MERGES) shadow.merge(named(merge), ruleOf(Statistic.STATISTIC_RANDOM));
      const read = Array.from({ length: groups }, () => new Set<number>());
      let missedInAll = 0;
      for (let position = TOKENS; position < TOKENS + 30; position++) {
        const reads = feed(position, position + 1, shadow).shadow!;
        for (let group = 0; group < groups; group++) {
          const [layer, head] = headOf(group);
          let missed = 0;
          let fresh = 0;
          for (const slot of shadow.marked(group)) {
            const last = model.statistic(Statistic.STATISTIC_LAST, layer, Math.floor(slot / BLOCK), head);
            const share = last[slot % BLOCK]!;
            missed += share;
            if (share < shadow.readShare || read[group]!.has(slot)) continue;
            read[group]!.add(slot);
            fresh += 1;
          }
          assert.ok(Math.abs(reads.missed[group]! - missed) < 1e-6, `${reads.missed[group]} for ${missed}`);
          assert.equal(reads.regretted[group], fresh);
          missedInAll += missed;
        }
      }
      assert.ok(missedInAll > 0 && read.some(({ size }) => size > 0));
    });
  }

  test('equals the float64 reference: the mean over the query heads of a group, among all tokens', () => {
    const weights = randomWeights(11);
    const { folder: tiny, remove } = writeTinyLlama(weights);
    try {
      const config = readModelConfig(tiny);
      const model = new LlamaModel(tiny, config, 8, 30, 128);
      const ids = Array.from({ length: 100 }, (_, i) => 5 + ((i * 13 + (i >> 2)) % 250));
      const blocks = Array.from({ length: 13 }, (_, i) => 20 - i);
      const feed = (from: number, to: number, shadow?: ShadowCache) => {
        const chunk = { tokenIds: ids.slice(from, to), position: from, blocks, logits: false, measure: true };
        return model.forward([{ ...chunk, shadow }])[0]!;
      };
      feed(0, 99);
      const shadow = model.shadowCache();
      const at = (indices: number[]) => indices.map((index) => blocks[index]!);
      shadow.merge({ into: at([3]), from: at([2, 4]), beside: [] }, ruleOf(Statistic.STATISTIC_KEY_SIMILARITY));
      shadow.merge({ into: at([6]), from: at([3, 7]), beside: [] }, ruleOf(Statistic.STATISTIC_VALUE_RANGE));
      const { missed } = feed(99, 100, shadow).shadow!;
      const expected = new Float64Array(missed.length);
      const size = TINY.heads / TINY.kvHeads;
      referenceLogits(weights, ids, undefined, (layer, head, query, shares) => {
        if (query !== 99) return;
        const group = layer * TINY.kvHeads + Math.floor(head / size);
        for (const slot of shadow.marked(group)) {
          expected[group]! += shares[blocks.indexOf(Math.floor(slot / 8)) * 8 + (slot % 8)]! / size;
        }
      });
      expected.forEach((value, group) => {
        assert.ok(value > 0.05, `much is marked: ${value}`);
        assert.ok(Math.abs(missed[group]! - value) < 1e-5, `${missed[group]} for ${value}`);
      });
    } finally {
      remove();
    }
  });
});
