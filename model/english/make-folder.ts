/**
 * Prints the folder of the English model, which it makes when it is not there: `node_modules/.bin/node model/english/make-folder.ts`; with
 * `--base` that of SmolLM2.
 */
import { parseArgs } from 'node:util';
import { englishFolder, smolLm2Folder } from './folder.ts';

try {
  const { values } = parseArgs({ options: { base: { type: 'boolean', default: false } } });
  process.stdout.write(`${values.base ? smolLm2Folder() : englishFolder()}\n`);
} catch (error) {
  process.stderr.write(`make-folder: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
