/** Runs the tests; see `--help`. */
import { parseArgs } from 'node:util';
import { indent } from './testing/command.ts';
import { closingLine, count, judge, type Outcome, type Suite } from './testing/outcome.ts';
import { allSuites } from './testing/suites.ts';

const print = (line: string) => process.stdout.write(`${line}\n`);

const HELP = `Runs every suite and ends with a line "N passed, N failed, N skipped".

  --only SUITE   only this suite; may be given several times
  --fast         without vLLM and without the suites that start whole processes
  --list         names the suites and stops
  --help         show this help

The exit code is 1 when a test failed, a suite ran nothing or, with CI=true, a test was skipped.
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      fast: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const suites = allSuites();
  const unknown = values.only.filter((name) => !suites.some((suite) => suite.name === name));
  if (unknown.length > 0) {
    throw new RangeError(
      `no suite ${unknown.join(', ')}; expected one of ${suites.map((suite) => suite.name).join(', ')}`,
    );
  }
  if (values.list) {
    for (const suite of suites) print(`${suite.name.padEnd(16)} ${suite.summary}${suite.slow ? ' (slow)' : ''}`);
    return 0;
  }
  const chosen = suites.filter(
    (suite) => (values.only.length === 0 || values.only.includes(suite.name)) && !(values.fast && suite.slow),
  );
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

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`test: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
