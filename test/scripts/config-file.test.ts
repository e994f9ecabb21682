import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { loadProgramConfig } from '../../common/program.ts';
import { EngineConfig } from '../../engine/config.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { type Config, policyServiceSchema, settingsOf } from '../../policy-service/config.ts';
import { profilesSchema } from '../../policy-service/request/profiles.ts';
import { ROOT } from '../../scripts/processes.ts';

const FILE = join(ROOT, 'crystal-kv.yaml');
const sections = {
  engine: { section: 'engine', schema: EngineConfig },
  gateway: { section: 'gateway', schema: gatewaySchema },
  service: { section: 'policy_service', schema: policyServiceSchema },
  profiles: { section: 'profiles', schema: profilesSchema },
} as const;
const load = (file: string) => loadProgramConfig<Record<keyof typeof sections, object>>({ sections }, file, {});

describe('crystal-kv.yaml', () => {
  test('changes no option of the programs', () => {
    const { profiles: _, ...options } = load(FILE);
    const { profiles: __, ...defaults } = load('/dev/null');
    assert.deepEqual(options, defaults);
  });

  test('holds the profiles that there are without it', () => {
    const builtIn = profilesSchema.parse({});
    const written = load(FILE).profiles as typeof builtIn;
    for (const [name, profile] of Object.entries(builtIn)) assert.deepEqual(written[name], profile, name);
  });

  test('can be used by the policy service', () => {
    const { service, profiles } = load(FILE) as unknown as Config;
    assert.equal(settingsOf({ service, profiles }).defaultProfile.name, 'default');
  });

  test('shows defaults in its comments', () => {
    const text = readFileSync(FILE, 'utf8');
    const shown = /^ {2}# (\w+): ([^#\n]+?)(?: {2,}#.*)?$/gm;
    let checked = 0;
    const defaults = load('/dev/null') as unknown as Record<string, Record<string, unknown>>;
    for (const [section, key] of [
      ['engine', 'engine'],
      ['policy_service', 'service'],
      ['gateway', 'gateway'],
    ] as const) {
      const body = text.split(new RegExp(`^${section}:$`, 'm'))[1]?.split(/^\w+:$/m)[0] ?? '';
      for (const [, option = '', value = ''] of body.matchAll(shown)) {
        // Secrets and certificates have no default.
        if (value === '...' || option === 'tls') continue;
        const written: unknown = parse(value);
        const expected = structuredClone(defaults[key]?.[option]);
        // What depends on the machine is not written out.
        if (typeof written === 'object' && written !== null) {
          for (const [name, member] of Object.entries(written)) {
            if (member === '...') Object.assign(expected as object, { [name]: member });
          }
        }
        assert.deepEqual(written, expected, `${section}.${option}`);
        checked += 1;
      }
    }
    assert.ok(checked > 15, `${checked} options checked`);
  });
});
