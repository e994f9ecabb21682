/** Measures what the live page recommends; see `--help`. */
import { runCommandLine, wholeNumber } from '../scripts/command-line.ts';
import { ask } from './ask.ts';
import { GATEWAY_OPTION, presetOf } from './page-preset.ts';

await runCommandLine({
  name: 'live-page',
  about: `Sends what the live page sends when its button is pressed without a change, again and again, to a system that runs
(make run): each time a request with the preselected policy beside one with the full cache. Prints how often the answers
are right, and writes nothing.`,
  options: {
    url: GATEWAY_OPTION,
    model: { type: 'string', default: 'crystal-mini', value: 'NAME', help: 'crystal-mini (default) or english' },
    runs: { type: 'string', default: '50', value: 'N', help: 'how often (default 50)' },
    example: { type: 'string', value: 'N', help: 'another example than the preselected one, from 0' },
    budget: { type: 'string', value: 'TOKENS', help: 'another budget' },
    profile: { type: 'string', value: 'NAME', help: 'another profile' },
  },
  async run({ url, model, runs, example, budget, profile }) {
    const preset = presetOf(model);
    const asked = preset.examples[example === undefined ? preset.first : wholeNumber('example', example, 0, 99)]!;
    const cache = {
      profile: profile ?? preset.profile,
      budget_tokens: budget === undefined ? asked.budgetTokens : wholeNumber('budget', budget, 1, 1_000_000),
    };
    const count = wholeNumber('runs', runs, 1, 10_000);
    let [full, managed, same] = [0, 0, 0];
    for (let run = 1; run <= count; run += 1) {
      const [whole, kept] = await Promise.all([
        ask(url, asked, { model, cache: { mode: 'off' } }),
        ask(url, asked, { model, cache }),
      ]);
      full += Number(whole.exact);
      managed += Number(kept.exact);
      same += Number(whole.content === kept.content);
      process.stdout.write(
        `${run}: full cache ${whole.exact ? 'right' : 'wrong'}, ${cache.profile} ${kept.exact ? 'right' : 'wrong'}, ${whole.generatedTokens} and ${kept.generatedTokens} tokens\n`,
      );
    }
    process.stdout.write(
      `${asked.title}, ${cache.profile}, ${cache.budget_tokens} tokens: ${managed} of ${count} right, ${same} the same as the full cache, which is right ${full} times\n`,
    );
  },
});
