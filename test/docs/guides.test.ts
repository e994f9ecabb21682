import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { loadSection } from '../../common/config.ts';
import { policyServiceSchema, settingsOf } from '../../policy-service/config.ts';
import { profilesSchema } from '../../policy-service/request/profiles.ts';
import { ROOT } from '../../scripts/processes.ts';

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const rollout = read('docs/rollout.md');

test('the rollout guide names metrics, rules and alerts that exist', () => {
  const metrics = read('docs/metrics.md');
  const rules = read('deploy/prometheus/rules/recording.yml') + read('deploy/prometheus/rules/alerts.yml');
  const names = [...rollout.matchAll(/`((?:[a-z]+:)?crystalkv_[a-z_0-9:]+)/g)].map(([, name]) => name as string);
  assert.ok(names.length >= 15);
  for (const name of names) {
    if (name.includes(':')) assert.ok(rules.includes(`record: ${name}\n`), name);
    else assert.ok(metrics.includes(`\`${name}\``), name);
  }
  const alerts = [...rollout.matchAll(/`(CrystalKv\w+)`/g)].map(([, name]) => name as string);
  assert.ok(alerts.length >= 5);
  for (const name of alerts) assert.ok(rules.includes(`alert: ${name}\n`), name);
});

test('every stage of the rollout guide is a configuration that the policy service takes', () => {
  const stages = [...rollout.matchAll(/```yaml\n(.*?)```/gs)].map(([, text]) => parse(text as string));
  assert.equal(stages.length, 3);
  for (const file of stages) {
    const service = loadSection('policy_service', policyServiceSchema, file, {});
    settingsOf({ service, profiles: loadSection('profiles', profilesSchema, file, {}) });
  }
});

test('every file that the guides link to exists', () => {
  for (const path of ['docs/rollout.md', 'docs/compatibility.md', 'SECURITY.md']) {
    for (const [, target = ''] of read(path).matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      assert.ok(existsSync(join(ROOT, dirname(path), target)), `${path}: ${target}`);
    }
  }
});
