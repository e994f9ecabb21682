import { existsSync } from 'node:fs';
import { englishPath } from '../../model/english/folder.ts';

/** In CI everything is installed; elsewhere the package of 93 MB is not fetched for a test. */
export const READY = existsSync(englishPath()) || process.env['CI'] === 'true';
/** Of a suite that needs the model's folder. */
export const NEEDS_FOLDER = {
  skip: READY ? false : 'not made yet: node_modules/.bin/node model/english/make-folder.ts',
} as const;
