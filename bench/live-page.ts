/** Measures what the live page recommends; see `--help`. */
import { UsageError, wholeNumber } from '../scripts/command-line.ts';
import { ask } from './ask.ts';
import { GATEWAY_OPTION, presetOf } from './page-preset.ts';
import { runBench } from './program.ts';

const PRESELECTED = ['example', 'budget', 'profile'] as const;
const RECORDED_MODEL = 'crystal-mini';

await runBench({
  name: 'page',
  about: `Sends what the live page sends when its button is pressed without a change, again and again, to a system that runs
(make run): each time a request with the preselected policy beside one with the full cache. Prints how often the answers
are right.`,
  options: {
    url: GATEWAY_OPTION,
    model: { type: 'string', default: RECORDED_MODEL, value: 'NAME', help: 'crystal-mini (default) or english' },
    runs: { type: 'string', default: '50', value: 'N', help: 'how often (default 50)' },
    example: { type: 'string', value: 'N', help: 'another example than the preselected one, from 0' },
    budget: { type: 'string', value: 'TOKENS', help: 'another budget' },
    profile: { type: 'string', value: 'NAME', help: 'another profile' },
  },
  records: true,
  trial(values) {
    const other = PRESELECTED.find((option) => values[option] !== undefined);
    if (other !== undefined) return { because: `--${other} is not what the page preselects` };
    return values.model === RECORDED_MODEL ? undefined : { because: `only ${RECORDED_MODEL}'s is published` };
  },
  async run({ url, model, runs, example, budget, profile }, run) {
    const preset = presetOf(model);
    const index = example === undefined ? preset.first : wholeNumber('example', example, 0, 99);
    const asked = preset.examples[index];
    if (asked === undefined) throw new UsageError(`--example: there are ${preset.examples.length}, from 0`);
    const cache = {
      profile: profile ?? preset.profile,
      budget_tokens: budget === undefined ? asked.budgetTokens : wholeNumber('budget', budget, 1, 1_000_000),
    };
    const count = wholeNumber('runs', runs, 1, 10_000);
    const rows: { fullRight: boolean; right: boolean; same: boolean; fullTokens: number; tokens: number }[] = [];
    while (rows.length < count) {
      const [full, kept] = await Promise.all([
        ask(url, asked, { model, cache: { mode: 'off' } }),
        ask(url, asked, { model, cache }),
      ]);
      rows.push({
        ...{ fullRight: full.exact, right: kept.exact, same: full.content === kept.content },
        ...{ fullTokens: full.generatedTokens, tokens: kept.generatedTokens },
      });
      const told = [full, kept].map(({ exact, generatedTokens }) => `${exact ? 'right' : 'wrong'}, ${generatedTokens}`);
      run.say(`${rows.length}: full cache ${told[0]} tokens; ${cache.profile} ${told[1]} tokens`);
    }
    const times = (holds: 'fullRight' | 'right' | 'same') => rows.filter((row) => row[holds]).length;
    const figures = { runs: count, right: times('right'), same: times('same'), full_right: times('fullRight') };
    run.say(
      `${asked.title}, ${cache.profile}, ${cache.budget_tokens} tokens: ${figures.right} of ${count} right, ${figures.same} the same as the full cache, which is right ${figures.full_right} times`,
    );
    const conditions = {
      what: 'npm run bench:page, beside make run',
      ...{ example: asked.title, profile: cache.profile, budget_tokens: cache.budget_tokens },
      decoding: 'greedy, not in lockstep, each request beside the same one with the full cache',
    };
    run.report({ conditions, figures, rows });
  },
});
