import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { askAll } from '../../bench/ask.ts';
import { answerTokenLimit, makePrograms } from '../../bench/workload.ts';
import { FORMS, type Form } from '../../model/form.ts';
import type { Program } from '../../model/program.ts';
import { createRandom } from '../../model/random.ts';
import { TOKEN } from '../../model/vocab.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { CONFIG } from './harness.ts';

const PROGRAMS = 24;
const LINES = 24;

/** Whole caches of such thinking take 24 and 52 blocks of 16 tokens; about a quarter of that. */
const BUDGET_TOKENS: Readonly<Record<Form, number>> = { plain: 96, verbose: 208 };

/** What the weights must bear, so that a policy is measured by what it loses and not by how the model falls apart. */
describe('crystal-mini', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ config: { ...CONFIG, engine: { ...CONFIG.engine, lockstep: true } } });
  });
  after(() => cluster?.close());

  /** Answers after `cut` tokens; of the values asked, how many stood in the reasoning by then, and are told right. */
  const askAfter = async ({ ids, queries, lookups }: Program, cut: number) => {
    const response = await fetch(`${cluster.engineUrl}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        model: 'crystal-mini',
        prompt: [...ids.slice(0, cut), TOKEN.thinkEnd],
        temperature: 0,
        max_tokens: 3 * queries.length,
      }),
    });
    const { choices } = (await response.json()) as { choices: [{ text: string }] };
    const answers = lookups.filter((lookup) => lookup.where === 'answer');
    const known = queries.filter((_, index) => answers[index]!.earlierPositions.some((position) => position < cut));
    const told = ` ${choices[0].text.trim()} `;
    const right = known.filter(({ label, register, value }) => told.includes(` ${label} ${register} =${value} `));
    return { known: known.length, right: right.length };
  };

  for (const form of FORMS) {
    test(`ends its thinking and answers with random blocks gone, in the ${form} form`, async () => {
      const answers = await askAll(cluster.gatewayUrl, makePrograms(52, PROGRAMS, LINES, form), {
        maxTokens: answerTokenLimit(LINES, form),
        concurrency: PROGRAMS,
        cache: { profile: 'random', budget_tokens: BUDGET_TOKENS[form] },
      });
      const ended = answers.filter((answer) => answer.thinkingEnded).length;
      assert.ok(ended >= PROGRAMS - 1, `${ended} of ${PROGRAMS} ended`);
      const exact = answers.filter((answer) => answer.exact).length;
      assert.ok(exact < PROGRAMS / 2, `${exact} of ${PROGRAMS} are right: too little was evicted to show anything`);
    });

    test(`answers when its thinking is ended early, with most of what it knows, in the ${form} form`, async () => {
      const random = createRandom(51);
      const results = await Promise.all(
        makePrograms(51, PROGRAMS, LINES, form).map((program) =>
          askAfter(program, random.integer(program.promptLength, program.thinkEnd)),
        ),
      );
      const sum = (key: 'known' | 'right') => results.reduce((total, result) => total + result[key], 0);
      assert.ok(sum('known') >= PROGRAMS, `only ${sum('known')} values were known: the test shows little`);
      assert.ok(sum('right') >= 0.75 * sum('known'), `${sum('right')} of ${sum('known')} known values told`);
    });
  }
});
