/** Runs the tests; see `--help`. */
import { namesOf, runCommandLine } from './command-line.ts';
import { indent } from './testing/command.ts';
import { closingLine, count, judge, type Outcome, type Suite } from './testing/outcome.ts';
import { allSuites } from './testing/suites.ts';

const print = (line: string) => process.stdout.write(`${line}\n`);

await runCommandLine({
  name: 'test',
  about: 'Runs every suite and ends with a line "N passed, N failed, N skipped".',
  options: {
    only: { type: 'string', multiple: true, default: [] as string[], value: 'SUITE', help: 'only this suite' },
    fast: { type: 'boolean', default: false, help: 'without vLLM and without the suites that start whole processes' },
    list: { type: 'boolean', default: false, help: 'name the suites, then stop' },
  },
  notes: 'The exit code is 1 when a test failed, a suite ran nothing or, with CI=true, a test was skipped.',
  run: runTests,
});

async function runTests({ only, fast, list }: { only: string[]; fast: boolean; list: boolean }): Promise<number> {
  const suites = allSuites();
  if (list) {
    for (const suite of suites) print(`${suite.name.padEnd(16)} ${suite.summary}${suite.slow ? ' (slow)' : ''}`);
    return 0;
  }
  const names = namesOf(
    'only',
    only,
    suites.map(({ name }) => name),
  );
  const chosen = suites.filter(({ name, slow }) => names.includes(name) && !(fast && slow));
  const strict = process.env['CI'] === 'true';
  const results: { suite: string; outcome: Outcome }[] = [];
  for (const suite of chosen) results.push({ suite: suite.name, outcome: await runSuite(suite) });
  const { total, good } = judge(results, strict);
  if (total.skipped.length > 0) print('\nSkipped');
  for (const note of total.skipped) print(`  ${note.name}: ${note.detail}`);
  if (strict && total.skipped.length > 0) print('  With CI=true every test has to run.');
  if (total.failed.length > 0) print('\nFailed');
  for (const note of total.failed) print(`\n${indent(note)}`);
  print('');
  print(closingLine(total));
  return good ? 0 : 1;
}

async function runSuite(suite: Suite): Promise<Outcome> {
  print(`\n${suite.name}: ${suite.summary}`);
  const started = performance.now();
  const outcome = await suite.run((line) => print(`  ${line}`));
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const verdict = outcome.failed.length > 0 ? 'failed' : count(outcome) === 0 ? 'ran no test' : 'ok';
  print(`  ${verdict}: ${closingLine(outcome)}, ${seconds} s`);
  return outcome;
}
