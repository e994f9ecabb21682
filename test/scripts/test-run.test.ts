import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { compareFolders } from '../../scripts/testing/generated.ts';
import { runNodeSuite } from '../../scripts/testing/node-suite.ts';
import { closingLine, failure, judge, type Outcome, PASSED } from '../../scripts/testing/outcome.ts';
import { readJunit } from '../../scripts/testing/python.ts';
import { until } from '../../scripts/until.ts';
import { isAlive } from '../support/is-alive.ts';

const root = mkdtempSync(join(tmpdir(), 'crystal-kv-test-run-'));
after(() => rmSync(root, { recursive: true, force: true }));

/** A folder with these files. */
function folderOf(name: string, files: Readonly<Record<string, string>>): string {
  const folder = join(root, name);
  mkdirSync(folder);
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
  return folder;
}

const run = (name: string, code: string, patienceMs = 30_000): Promise<Outcome> =>
  runNodeSuite(
    {
      folder: folderOf(name, {
        'it.test.ts': `import { test, describe, before } from 'node:test'; import assert from 'node:assert/strict';\n${code}`,
      }),
      concurrency: 1,
      patienceMs,
    },
    () => {},
  );

describe('a suite of test files', () => {
  test('counts tests, not groups, and names failures by their groups', async () => {
    const outcome = await run(
      'counts',
      `describe('outer', () => { test('good', () => {}); describe('inner', () => { test('bad', () => assert.equal(1, 2)); }); });`,
    );
    assert.equal(closingLine(outcome), '1 passed, 1 failed, 0 skipped');
    assert.match(outcome.failed[0]?.name ?? '', /it\.test\.ts: outer > inner > bad$/);
    assert.match(outcome.failed[0]?.detail ?? '', /1 !== 2/);
  });

  test('counts what is skipped or still to be written, with the reason', async () => {
    const outcome = await run(
      'skips',
      `test('a', { skip: 'promtool is not installed' }, () => {}); test('b', { todo: true }, () => {}); test('c', () => {});`,
    );
    assert.equal(closingLine(outcome), '1 passed, 0 failed, 2 skipped');
    assert.equal(outcome.skipped[0]?.detail, 'promtool is not installed');
  });

  test('fails a group whose preparation fails', async () => {
    const outcome = await run(
      'hook',
      `describe('g', () => { before(() => { throw new Error('x'); }); test('t', () => {}); });`,
    );
    assert.equal(outcome.passed, 0);
    assert.ok(outcome.failed.length > 0);
  });

  test('fails a file that runs no test', async () => {
    const outcome = await run('none', '');
    assert.equal(closingLine(outcome), '0 passed, 1 failed, 0 skipped');
    assert.match(outcome.failed[0]?.detail ?? '', /ran no test/);
  });

  test('fails a file that cannot be loaded, with what it printed', async () => {
    const outcome = await run('load', `throw new Error('broken module');`);
    assert.equal(outcome.failed.length, 1);
    assert.match(outcome.failed[0]?.detail ?? '', /broken module/);
  });

  test('fails a file that does not end, although its tests passed', async () => {
    const outcome = await run('hang', `test('t', () => {}); setInterval(() => {}, 1000);`, 1500);
    assert.equal(outcome.failed.length, 1);
    assert.match(outcome.failed[0]?.detail ?? '', /did not end in time/);
  });

  test('lets a file go on for as long as tests end in it', async () => {
    const test = `await test('t', () => new Promise((resolve) => setTimeout(resolve, 1200)));`;
    const outcome = await run('long', test.repeat(4), 3000);
    assert.equal(closingLine(outcome), '4 passed, 0 failed, 0 skipped');
  });

  test('ends what a file has started with it', async () => {
    const outcome = await run(
      'orphan',
      `import { spawn } from 'node:child_process';
       test('t', () => console.log(spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' }).pid));`,
      3000,
    );
    const pid = Number(/^\s*(\d+)$/m.exec(outcome.failed[0]?.detail ?? '')?.[1]);
    assert.ok(pid > 0, outcome.failed[0]?.detail);
    await until(() => !isAlive(pid), 'it ends');
  });

  test('fails a file whose process fails after its tests', async () => {
    const outcome = await run('exit', `test('t', () => {}); process.on('exit', () => { process.exitCode = 4; });`);
    assert.match(outcome.failed[0]?.detail ?? '', /ended with code 4/);
  });

  test('has nothing to count in a folder without test files', async () => {
    const options = { folder: folderOf('empty', {}), concurrency: 1, patienceMs: 1000 };
    assert.equal(closingLine(await runNodeSuite(options, () => {})), '0 passed, 0 failed, 0 skipped');
  });
});

describe('a test run', () => {
  const skipped: Outcome = { passed: 1, failed: [], skipped: [{ name: 's', detail: 'why' }] };

  test('is good when all passed', () => {
    const { total, good } = judge([{ suite: 'a', outcome: PASSED }], true);
    assert.equal(closingLine(total), '1 passed, 0 failed, 0 skipped');
    assert.equal(good, true);
  });

  test('is not good when a test failed', () => {
    assert.equal(judge([{ suite: 'a', outcome: failure('t', 'd') }], false).good, false);
  });

  test('is not good when a suite ran nothing, and says which', () => {
    const nothing: Outcome = { passed: 0, failed: [], skipped: [] };
    const { total, good } = judge(
      [
        { suite: 'a', outcome: PASSED },
        { suite: 'b', outcome: nothing },
      ],
      false,
    );
    assert.equal(good, false);
    assert.deepEqual(total.failed, [{ name: 'b', detail: 'the suite ran no test' }]);
  });

  test('is not good when no suite was run', () => {
    assert.equal(judge([], false).good, false);
  });

  test('accepts skips by a developer, not in CI', () => {
    assert.equal(judge([{ suite: 'a', outcome: skipped }], false).good, true);
    assert.equal(judge([{ suite: 'a', outcome: skipped }], true).good, false);
  });
});

describe('what other tools report', () => {
  test("pytest's cases are counted by result", () => {
    const outcome = readJunit(`<testsuites><testsuite tests="4">
      <testcase classname="a" name="one" time="0.1" /><testcase classname="a" name="two"><failure message="1 != 2">x</failure></testcase>
      <testcase classname="a" name="three"><skipped message="no torch"/></testcase><testcase classname="a" name="four"><error message="e"/></testcase>
    </testsuite></testsuites>`);
    assert.equal(closingLine(outcome), '1 passed, 2 failed, 1 skipped');
    assert.deepEqual(outcome.skipped, [{ name: 'a: three', detail: 'no torch' }]);
    assert.equal(outcome.failed[0]?.name, 'a: two');
  });

  test('generated folders differ in missing, additional and changed files', () => {
    const left = folderOf('left', { same: '1', changed: '1', missing: '1' });
    const right = folderOf('right', { same: '1', changed: '2', additional: '1' });
    assert.deepEqual(compareFolders(left, right), ['additional', 'changed', 'missing']);
    assert.deepEqual(compareFolders(left, left), []);
  });
});
