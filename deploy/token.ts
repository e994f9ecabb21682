/**
 * Writes a random token for gRPC into the file that is named, unless it is there: what docker-compose.yml runs before
 * everything else, so that no secret is committed, shown or typed. Everybody on the volume may read it.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';

const file = process.argv[2];
if (file === undefined) {
  process.stderr.write('usage: node deploy/token.ts FILE\n');
  process.exit(2);
}
try {
  writeFileSync(file, `${randomBytes(32).toString('base64url')}\n`, { flag: 'wx', mode: 0o444 });
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
}
