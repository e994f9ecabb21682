/** Writes the schema of profiles; see `--help`. */
import { z } from 'zod';
import { profilesSchema } from '../policy-service/request/profiles.ts';
import { runGenerator } from './generator.ts';

const FILE = 'common/profiles.schema.json';

await runGenerator({
  name: 'profile-schema',
  about: `Writes ${FILE}: what the policy service takes as the section profiles, for programs and editors that do
not know it.`,
  async make() {
    const schema = z.toJSONSchema(profilesSchema, { io: 'input' });
    return new Map([[FILE, `${JSON.stringify(schema, undefined, 2)}\n`]]);
  },
});
