import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readModelConfig } from '../../engine/model/config.ts';
import { LlamaModel } from '../../engine/model/llama.ts';
import type { CountedChunk } from '../../engine/model/step-model.ts';
import { KEPT_STATISTICS } from '../../engine/model/token-statistics.ts';
import { type KeepRule, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';

const folder = fileURLToPath(new URL('../../model/crystal-mini', import.meta.url));
const config = readModelConfig(folder);
const BLOCK = 16;
const PROMPT = 24;
const TOKENS = 200;
const HALF_LIVES = { attentionHalfLifeTokens: 30, peakHalfLifeTokens: 50 };
const tokenIds = Array.from({ length: TOKENS + 40 }, (_, i) => 3 + ((i * 7 + (i >> 3)) % 60));
const groups = Array.from({ length: config.layers }, (_, layer) =>
  Array.from({ length: config.kvHeads }, (_, head) => ({ layer, head })),
).flat();

/** By head group and position: what the newest query gave, what all gave, and so on. */
type Figures = Map<string, number>;

function open() {
  const model = new LlamaModel(folder, config, BLOCK, 60, 512);
  model.keepStatistics({ statistics: new Set(KEPT_STATISTICS), ...HALF_LIVES });
  const blocks = Array.from({ length: Math.ceil(tokenIds.length / BLOCK) }, (_, i) => 50 - i);
  const own: CountedChunk = {
    position: PROMPT,
    from: Math.floor(PROMPT / BLOCK),
    to: Number.POSITIVE_INFINITY,
    probe: false,
  };
  const feed = (from: number, to: number, counts: CountedChunk | undefined = own, table = blocks) =>
    model.forward([
      { tokenIds: tokenIds.slice(from, to), position: from, blocks: table, logits: false, measure: false, counts },
    ]);
  /** Of the output tokens that `table` holds. */
  const read = (statistic: Statistic, end: number, table = blocks): Figures => {
    const figures: Figures = new Map();
    for (const { layer, head } of groups) {
      for (const block of table.slice(Math.floor(PROMPT / BLOCK), Math.ceil(end / BLOCK))) {
        if (block === 0) continue;
        const values = model.statistic(statistic, layer, block, head);
        model.positions(layer, block, head).forEach((position, slot) => {
          if (position >= PROMPT && position < end) figures.set(`${layer} ${head} ${position}`, values[slot]!);
        });
      }
    }
    return figures;
  };
  return { model, blocks, feed, read };
}

function assertClose(actual: Figures, expected: Figures, tolerance: number): void {
  assert.equal(actual.size, expected.size);
  for (const [key, value] of expected) {
    assert.ok(Math.abs(actual.get(key)! - value) <= tolerance, `${key}: ${actual.get(key)} for ${value}`);
  }
}

/** Follows the definitions in float64, from what each query gave. */
class Reference {
  readonly attention: Figures = new Map();
  readonly total: Figures = new Map();
  readonly window: Figures = new Map();
  #before: Figures = new Map();
  #now: Figures = new Map();

  take(position: number, last: Figures): void {
    if (position % 64 === 0) {
      this.#before = this.#now;
      this.#now = new Map();
    }
    for (const [key, p] of last) {
      this.attention.set(key, (this.attention.get(key) ?? 0) * 2 ** (-1 / HALF_LIVES.attentionHalfLifeTokens) + p);
      this.total.set(key, (this.total.get(key) ?? 0) + p);
      this.#now.set(key, (this.#now.get(key) ?? 0) + p);
    }
    for (const key of last.keys()) this.window.set(key, (this.#before.get(key) ?? 0) + (this.#now.get(key) ?? 0));
  }
}

suite('statistics of tokens', () => {
  test('sum up what every query gave, as the contract defines it', () => {
    const { feed, read } = open();
    const reference = new Reference();
    feed(0, PROMPT);
    for (let position = PROMPT; position < TOKENS; position++) {
      feed(position, position + 1);
      reference.take(position, read(Statistic.STATISTIC_LAST, position + 1));
    }
    assertClose(read(Statistic.STATISTIC_ATTENTION, TOKENS), reference.attention, 1e-4);
    assertClose(read(Statistic.STATISTIC_TOTAL, TOKENS), reference.total, 1e-4);
    assertClose(read(Statistic.STATISTIC_WINDOW, TOKENS), reference.window, 1e-4);
    const total = [...reference.total.values()].reduce((sum, value) => sum + value, 0);
    assert.ok(total > groups.length * 50, 'output tokens got attention');
  });

  test('are the same when many tokens are computed at once, as after a preemption', () => {
    const [one, many] = [open(), open()];
    one.feed(0, PROMPT);
    for (let position = PROMPT; position < TOKENS; position++) one.feed(position, position + 1);
    many.feed(0, 130);
    many.feed(130, TOKENS);
    for (const statistic of KEPT_STATISTICS) {
      assertClose(many.read(statistic, TOKENS), one.read(statistic, TOKENS), 1e-4);
    }
  });

  test('hold for the most that one query gave: it is no less than the mean, and fades', () => {
    const { feed, read } = open();
    feed(0, PROMPT);
    for (let position = PROMPT; position < TOKENS; position++) {
      const faded = read(Statistic.STATISTIC_PEAK, position);
      feed(position, position + 1);
      const [peak, last] = [Statistic.STATISTIC_PEAK, Statistic.STATISTIC_LAST].map((one) => read(one, position + 1));
      for (const [key, value] of peak!) {
        const kept = (faded.get(key) ?? 0) * 2 ** (-1 / HALF_LIVES.peakHalfLifeTokens);
        assert.ok(value >= kept - 1e-6 && value >= last!.get(key)! - 1e-6, key);
        assert.ok(value <= Math.max(kept, config.heads * last!.get(key)!) + 1e-6, key);
      }
    }
  });

  test('of an answer probe raise what an answer reads, in the shared blocks, and age nothing', () => {
    const { feed, read, blocks } = open();
    feed(0, PROMPT);
    for (let position = PROMPT; position < TOKENS; position++) feed(position, position + 1);
    const shared = Math.floor(TOKENS / BLOCK);
    const before = new Map(KEPT_STATISTICS.map((one) => [one, read(one, shared * BLOCK)]));
    const fork = [...blocks.slice(0, shared), 3, 4, 5];
    const counts = { position: TOKENS, from: Math.floor(PROMPT / BLOCK), to: shared, probe: true };
    feed(shared * BLOCK, TOKENS, counts, fork);
    for (const [one, figures] of before) assertClose(read(one, shared * BLOCK), figures, 0);
    for (let position = TOKENS; position < TOKENS + 20; position++) feed(position, position + 1, counts, fork);
    for (const one of KEPT_STATISTICS) {
      const after = read(one, shared * BLOCK);
      if (one === Statistic.STATISTIC_ANSWER) {
        assert.ok([...after.values()].every((value) => value > 0));
      } else if (one === Statistic.STATISTIC_PEAK) {
        const answer = read(Statistic.STATISTIC_ANSWER, shared * BLOCK);
        for (const [key, value] of after) {
          assert.equal(value, Math.fround(Math.max(before.get(one)!.get(key)!, answer.get(key)!)), key);
        }
      } else assertClose(after, before.get(one)!, 0);
    }
  });

  suite('queries of a probe that are asked again', () => {
    const shared = Math.floor(TOKENS / BLOCK);
    const first = Math.floor(PROMPT / BLOCK);
    /** Runs a probe that says tokens 0 to 19 after `TOKENS` tokens. */
    const probed = () => {
      const opened = open();
      const { model, blocks, feed } = opened;
      feed(0, TOKENS);
      const queries = model.answerQueries(TOKENS, shared * BLOCK)!;
      const fork = [...blocks.slice(0, shared), 3, 4, 5];
      const counts = { position: TOKENS, from: first, to: shared, probe: true };
      const probe = [...tokenIds.slice(shared * BLOCK, TOKENS), ...tokenIds.slice(0, 20)];
      probe.forEach((id, i) => {
        const chunk = { tokenIds: [id], position: shared * BLOCK + i, blocks: fork, logits: false, measure: false };
        model.forward([{ ...chunk, counts, queries }]);
      });
      assert.equal(queries.count, 20);
      return { ...opened, queries };
    };
    const ANSWER = Statistic.STATISTIC_ANSWER;

    test('give what they gave, as long as nothing has changed', () => {
      const { model, blocks, read, queries } = probed();
      const once = read(ANSWER, shared * BLOCK);
      model.keepStatistics(undefined);
      model.keepStatistics({ statistics: new Set([ANSWER]), ...HALF_LIVES });
      assert.ok([...read(ANSWER, shared * BLOCK).values()].every((value) => value === 0));
      model.ask(queries, blocks, TOKENS, first);
      assertClose(read(ANSWER, shared * BLOCK), once, 1e-5);
    });

    test('read of later tokens what a later probe with the same words reads, where words alone make the queries', () => {
      const { model, blocks, feed, read, queries } = probed();
      const end = TOKENS + 35;
      feed(TOKENS, end);
      model.keepStatistics(undefined);
      model.keepStatistics({ statistics: new Set([ANSWER]), ...HALF_LIVES });
      model.ask(queries, blocks, end, first);
      assert.equal(queries.askedUpTo, end);
      const full = Math.floor(end / BLOCK);
      const asked = read(ANSWER, full * BLOCK);
      model.keepStatistics(undefined);
      model.keepStatistics({ statistics: new Set([ANSWER]), ...HALF_LIVES });
      const fork = [...blocks.slice(0, full), 3, 4, 5];
      const counts = { position: end, from: first, to: full, probe: true };
      const chunk = { blocks: fork, logits: false, measure: false, counts };
      const words = [...tokenIds.slice(full * BLOCK, end), ...tokenIds.slice(0, 20)];
      for (const [i, id] of words.entries()) {
        model.forward([{ ...chunk, tokenIds: [id], position: full * BLOCK + i }]);
      }
      const firstLayer = (figures: Figures) => new Map([...figures].filter(([key]) => key.startsWith('0 ')));
      const later = firstLayer(read(ANSWER, full * BLOCK));
      assert.ok([...later].some(([key, value]) => Number(key.split(' ')[2]) >= TOKENS && value > 0.001));
      assertClose(firstLayer(asked), later, 1e-4);
    });
  });

  test('move with their tokens when blocks are merged, and go on counting', () => {
    const { model, feed, read, blocks } = open();
    feed(0, PROMPT);
    for (let position = PROMPT; position < TOKENS; position++) feed(position, position + 1);
    const before = new Map(KEPT_STATISTICS.map((one) => [one, read(one, TOKENS)]));
    const rule: KeepRule = {
      stages: [
        {
          share: 1,
          terms: [{ statistic: Statistic.STATISTIC_ATTENTION, weight: 1, scale: Scale.SCALE_UNSPECIFIED, pool: 0 }],
          sampled: false,
        },
      ],
      seed: 0,
    };
    assert.ok(model.canFollow(rule));
    const at = (index: number) => blocks[index]!;
    model.merge({ into: [3, 6, 8].map(at), from: [2, 4, 5].map(at), beside: [7, 9, 10].map(at) }, rule);
    for (const index of [2, 4, 5]) blocks[index] = 0;
    for (const [one, figures] of before) {
      const after = read(one, TOKENS);
      assert.equal(after.size, figures.size - groups.length * 3 * BLOCK);
      for (const [key, value] of after) assert.equal(value, figures.get(key), key);
    }
    const attention = before.get(Statistic.STATISTIC_ATTENTION)!;
    const merged = [...attention].filter(([key]) => {
      const position = Number(key.split(' ')[2]);
      return position >= 2 * BLOCK && position < 9 * BLOCK && !(position >= 7 * BLOCK && position < 8 * BLOCK);
    });
    const stayed = read(Statistic.STATISTIC_ATTENTION, TOKENS);
    for (const { layer, head } of groups) {
      const own = merged.filter(([key]) => key.startsWith(`${layer} ${head} `));
      const [kept, gone] = [true, false].map((stays) =>
        own.filter(([key]) => stayed.has(key) === stays).map(([, value]) => value),
      );
      assert.equal(kept!.length, 3 * BLOCK);
      assert.ok(Math.min(...kept!) >= Math.max(...gone!), 'those that were read most stay');
    }
    feed(TOKENS, TOKENS + 1);
    const last = read(Statistic.STATISTIC_LAST, TOKENS + 1);
    const total = read(Statistic.STATISTIC_TOTAL, TOKENS + 1);
    for (const [key, value] of before.get(Statistic.STATISTIC_TOTAL)!) {
      if (total.has(key)) assert.ok(Math.abs(total.get(key)! - value - last.get(key)!) < 1e-5, key);
    }
  });

  test('begin at 0 when a token is stored, and when they were not kept before', () => {
    const { model, feed, read } = open();
    feed(0, PROMPT);
    for (let position = PROMPT; position < 100; position++) feed(position, position + 1);
    const before = read(Statistic.STATISTIC_TOTAL, 64);
    feed(0, 64);
    const again = read(Statistic.STATISTIC_TOTAL, 64);
    for (const [key, value] of again) assert.ok(value < before.get(key)!, key);
    model.keepStatistics(undefined);
    feed(64, 100);
    model.keepStatistics({ statistics: new Set(KEPT_STATISTICS), ...HALF_LIVES });
    for (const one of KEPT_STATISTICS) assert.ok([...read(one, 100).values()].every((value) => value === 0));
  });

  test('that are not kept cannot be asked for by a rule', () => {
    const { model } = open();
    model.keepStatistics({ statistics: new Set([Statistic.STATISTIC_TOTAL]), ...HALF_LIVES });
    const rule = (statistic: Statistic): KeepRule => ({
      stages: [{ share: 1, terms: [{ statistic, weight: 1, scale: Scale.SCALE_RANK, pool: 0 }], sampled: false }],
      seed: 0,
    });
    assert.equal(model.canFollow(rule(Statistic.STATISTIC_TOTAL)), true);
    assert.equal(model.canFollow(rule(Statistic.STATISTIC_DISTINCT_VALUES)), true);
    assert.equal(model.canFollow(rule(Statistic.STATISTIC_PEAK)), false);
  });
});
