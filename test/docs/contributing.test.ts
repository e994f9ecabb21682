import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../../scripts/processes.ts';

/** Made by tools, or hidden. */
const NOT_OURS = /^(node_modules|__pycache__|build|dist|lib|tmp|\..*|.*\.egg-info)$/;
const folders = (path: string) =>
  readdirSync(join(ROOT, path), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !NOT_OURS.test(entry.name))
    .map((entry) => `${path}${entry.name}/`);

test('the tree of CONTRIBUTING names every folder of the parts, and no other', () => {
  const [, tree = ''] = /^```\n(gateway\/.*?)^```$/ms.exec(readFileSync(join(ROOT, 'CONTRIBUTING.md'), 'utf8')) ?? [];
  const named: string[] = [];
  let part = '';
  for (const line of tree.trimEnd().split('\n')) {
    const [, indent, name = ''] = /^( {2})?(\S+\/) +\S/.exec(line) ?? [];
    assert.notEqual(name, '', `no folder and description in: ${line}`);
    if (indent === undefined) part = name;
    named.push(indent === undefined ? name : part + name);
  }
  const parts = folders('');
  // The folders of test/ are suites, which `npm test -- --list` names.
  const suites = folders('test/').filter((suite) => !named.includes(suite));
  const all = [...parts, ...parts.flatMap(folders)].filter((folder) => !suites.includes(folder));
  assert.deepEqual(named.toSorted(), all.toSorted());
});
