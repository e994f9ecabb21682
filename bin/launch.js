import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NEEDED = 24;
const FAILED = 1;

/**
 * Runs a program of `lib/` in this process when Node is new enough, otherwise on the Node that the package brings along,
 * if npm was allowed to run its install script.
 */
export async function launch(program) {
  const file = fileURLToPath(new URL(`../lib/${program}`, import.meta.url));
  if (!existsSync(file)) {
    process.stderr.write(
      `${file} is not there: this is a checkout, not the package. Use \`make run\`, or \`node_modules/.bin/node ${program.replace(/js$/, 'ts')}\`; \`make release\` makes the package\n`,
    );
    process.exit(FAILED);
  }
  if (Number(process.versions.node.split('.')[0]) >= NEEDED) {
    await import(file);
    return;
  }
  const node = join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin/node');
  if (!existsSync(node)) {
    process.stderr.write(
      `Node ${NEEDED} or newer is needed, this is ${process.version}; npm did not run the install script of the package \`node\`\n`,
    );
    process.exit(FAILED);
  }
  const child = spawn(node, [file, ...process.argv.slice(2)], { stdio: 'inherit' });
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  // A terminal sends it to both; the second one would end the program at once.
  process.on('SIGINT', () => {});
  child.once('exit', (code, signal) => process.exit(signal === null ? (code ?? FAILED) : FAILED));
}
