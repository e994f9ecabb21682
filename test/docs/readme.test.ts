import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CONTROLLERS } from '../../policy-service/controllers/registry.ts';
import { POLICIES } from '../../policy-service/policies/registry.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string) => readFileSync(`${root}${path}`, 'utf8');
const readme = read('README.md');
const policies = read('docs/policies.md');

test('the guide to policies names every policy, with the words and sources of the code', () => {
  for (const [name, { summary, source }] of Object.entries(POLICIES)) {
    assert.ok(policies.includes(`| \`${name}\` | ${summary} | ${source} |`), name);
  }
});

test('it names every controller, with the words of the code', () => {
  for (const [name, { summary }] of Object.entries(CONTROLLERS)) {
    assert.ok(policies.includes(`| \`${name}\` | ${summary} |`), name);
  }
});

test('every document and help starts TypeScript with the Node of the lock file: that of the machine may not run it', () => {
  const folders = [
    '.',
    'docs',
    'model',
    'vllm-plugin',
    'deploy/compose',
    'bench',
    'scripts',
    'model/english',
    'gateway',
  ];
  const files = folders.flatMap((folder) => {
    const names = readdirSync(`${root}${folder}`).filter((name) => /\.(md|yaml|yml|ts)$/.test(name));
    return names.map((name) => `${folder}/${name}`);
  });
  assert.ok(files.length >= 80);
  for (const file of files) {
    for (const line of read(file).split('\n')) {
      // containers have that Node
      if (/container|compose exec|kubectl/.test(line)) continue;
      assert.doesNotMatch(line, /(?<![\w./-])node (?:[\w.-]+\/)*[\w-]+\.ts/, file);
    }
  }
});

test('every command of the documents exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const makefile = read('Makefile');
  const documents = [
    readme,
    ...['docs/measured.md', 'docs/policies.md', 'CONTRIBUTING.md', 'docs/experiments.md', 'model/README.md'].map(read),
  ].join('\n');
  const commands = [...documents.matchAll(/(?:^|`)((?:npm run(?: --silent)?|make) [a-z][a-z:-]*)/gm)].map(
    (match) => match[1]!,
  );
  assert.ok(commands.length >= 20);
  for (const command of commands) {
    const name = command.split(' ').at(-1)!;
    const known = command.startsWith('make') ? new RegExp(`^${name}:`, 'm').test(makefile) : name in scripts;
    assert.ok(known, command);
  }
});
