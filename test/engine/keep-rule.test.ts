import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import { SCALES, type ScaleName, STATISTICS, type StatisticName } from '../../common/protocol.ts';
import { drawn, isFollowable, keptBy } from '../../engine/model/keep-rule.ts';
import { type KeepRule, type KeepStage, Scale, Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';

/** Written by vllm-plugin/tests/record_keep_rules.py: what a float64 reference keeps, which both engines follow. */
interface Recorded {
  merges: {
    headGroup: number;
    candidates: number;
    positions: number[];
    statistics: Record<string, number[]>;
    figures: Record<string, number[]>;
  }[];
  cases: {
    name: string;
    merge: number;
    room: number;
    kept: number[];
    rule: {
      seed: number;
      stages: {
        share: number;
        sampled: boolean;
        terms: { statistic: StatisticName; weight: number; scale?: ScaleName; pool?: number }[];
      }[];
    };
  }[];
}

const recorded = JSON.parse(readFileSync(new URL('../fixtures/keep-rules.json', import.meta.url), 'utf8')) as Recorded;

function ruleOf({ seed, stages }: Recorded['cases'][number]['rule']): KeepRule {
  return {
    seed,
    stages: stages.map(({ share, sampled, terms }) => ({
      share,
      sampled,
      terms: terms.map(({ statistic, weight, scale, pool = 0 }) => ({
        statistic: STATISTICS.values[statistic],
        weight,
        scale: scale === undefined ? Scale.SCALE_UNSPECIFIED : SCALES.values[scale],
        pool,
      })),
    })),
  };
}

suite('what a keep rule leaves is what the float64 reference leaves', () => {
  for (const [i, { name, merge, room, kept, rule }] of recorded.cases.entries()) {
    test(`${i} ${name}`, () => {
      const { headGroup, candidates, positions, statistics, figures } = recorded.merges[merge]!;
      const own = positions.slice(0, candidates);
      const stays = keptBy(
        ruleOf(rule),
        {
          positions: own,
          group: headGroup,
          figures: (statistic) => {
            const word = STATISTICS.word(statistic)!;
            return (statistics[word] ?? figures[word])!.slice(0, candidates);
          },
        },
        room,
      );
      assert.deepEqual(
        own.filter((_, token) => stays[token] === 1).sort((a, b) => a - b),
        kept,
      );
    });
  }
});

test('the numbers that rules draw are those of the reference', () => {
  for (const { headGroup, positions, figures } of recorded.merges) {
    const random = figures['random']!;
    for (const [i, expected] of random.entries()) {
      assert.ok(Math.abs(drawn(7, positions[i]!, headGroup) - expected) < 1e-6, `token ${i}`);
    }
  }
});

const term = { statistic: Statistic.STATISTIC_POSITION, weight: 1, scale: Scale.SCALE_UNSPECIFIED, pool: 0 };
const stage = (change: Partial<KeepStage> = {}): KeepStage => ({ share: 1, terms: [term], sampled: false, ...change });

suite('a rule that cannot be followed is recognised', () => {
  const wrong: [what: string, stages: KeepStage[]][] = [
    ['no stage', []],
    ['no term', [stage({ terms: [] })]],
    ['a share of 0 before the last stage', [stage({ share: 0 }), stage()]],
    ['a share above 1 before the last stage', [stage({ share: 1.5 }), stage()]],
    ['a share that is no number', [stage({ share: Number.NaN }), stage()]],
    ['a weight that is not finite', [stage({ terms: [{ ...term, weight: Number.POSITIVE_INFINITY }] })]],
    ['an even pool', [stage({ terms: [{ ...term, pool: 4 }] })]],
    ['an unknown statistic', [stage({ terms: [{ ...term, statistic: 99 as Statistic }] })]],
    ['an unspecified statistic', [stage({ terms: [{ ...term, statistic: Statistic.STATISTIC_UNSPECIFIED }] })]],
    ['an unknown scale', [stage({ terms: [{ ...term, scale: 9 as Scale }] })]],
    ['a statistic that is not kept', [stage({ terms: [{ ...term, statistic: Statistic.STATISTIC_PEAK }] })]],
  ];
  const available = (statistic: Statistic) => statistic !== Statistic.STATISTIC_PEAK;
  for (const [what, stages] of wrong) {
    test(what, () => assert.equal(isFollowable({ stages, seed: 0 }, available), false));
  }

  test('and one that can is not', () => {
    const stages = [stage({ share: 0.5 }), stage({ share: 0, terms: [{ ...term, pool: 3 }] })];
    assert.equal(isFollowable({ stages, seed: 0 }, available), true);
  });
});
