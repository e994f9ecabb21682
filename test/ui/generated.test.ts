import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

test("the examples are the model's own programs", () => {
  execFileSync(process.execPath, ['scripts/ui-examples.ts', '--check'], { cwd: root, stdio: 'pipe' });
});

for (const [copy, original] of [
  ['uPlot.iife.min.js', 'dist/uPlot.iife.min.js'],
  ['uPlot.min.css', 'dist/uPlot.min.css'],
  ['uPlot.LICENSE', 'LICENSE'],
] as const) {
  test(`vendor/${copy} is the installed library's`, () => {
    const read = (path: string) => readFileSync(`${root}${path}`);
    assert.ok(read(`gateway/ui/page/vendor/${copy}`).equals(read(`node_modules/uplot/${original}`)));
  });
}
