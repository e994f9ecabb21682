/** Makes lib/, what the npm package runs; see `--help`. */
import { cpSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { runCommandLine } from '../command-line.ts';
import { ROOT } from '../processes.ts';
import { lastLines, runCommand } from '../testing/command.ts';

const LIB = join(ROOT, 'lib');
/** What the programs read beside their code. */
const ASSETS = [
  'common/*.json',
  'gateway/**/*.{html,css,js,json,svg,LICENSE,yaml,lua}',
  'policy-service/**/*.{json,yaml}',
  'engine/kernels/kernels.wasm',
  'model/crystal-mini/*',
  'proto/crystalkv/v1/policy.proto',
];

await runCommandLine({
  name: 'library',
  about: `Makes lib/, what the npm package runs: Node strips types from no file below node_modules, so a package holds JavaScript.
The compiler follows the imports of the programs; files that they read lie at the same places as in the repository.`,
  options: {},
  run: makeLibrary,
});

async function makeLibrary(): Promise<void> {
  rmSync(LIB, { recursive: true, force: true });
  const compiled = await runCommand('tsc', ['-p', 'tsconfig.release.json']);
  if (compiled.code !== 0) throw new Error(lastLines(compiled.output));
  for (const file of ASSETS.flatMap((pattern) => globSync(pattern, { cwd: ROOT }))) {
    mkdirSync(dirname(join(LIB, file)), { recursive: true });
    cpSync(join(ROOT, file), join(LIB, file));
  }
  const { name, version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, string>;
  writeFileSync(
    join(LIB, 'package.json'),
    `${JSON.stringify({ name, version, type: 'module', private: true }, undefined, 2)}\n`,
  );
}
