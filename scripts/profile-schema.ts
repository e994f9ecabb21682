/**
 * `common/profiles.schema.json`: what the policy service takes as the section `profiles`, for programs and editors that do
 * not know it. `--check` compares instead, and fails when the file is stale.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { profilesSchema } from '../policy-service/request/profiles.ts';
import { ROOT } from './processes.ts';

const FILE = join(ROOT, 'common/profiles.schema.json');

const text = `${JSON.stringify(z.toJSONSchema(profilesSchema, { io: 'input' }), undefined, 2)}\n`;
if (!process.argv.includes('--check')) writeFileSync(FILE, text);
else if (readFileSync(FILE, 'utf8') !== text) {
  process.stderr.write(`${FILE} is not what the policy service takes; run make gen\n`);
  process.exitCode = 1;
}
