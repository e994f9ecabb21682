import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { loadSection } from '../../common/config.ts';
import { kvSavings } from '../../deploy/grafana/kv-savings.ts';
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

test('the rollout guide, the alerts and the panels have the same thresholds', () => {
  const [, tokens, blocks] =
    /`profile:crystalkv_regret:ratio_rate1h` \| below ([\d.]+) for `judged="tokens"`, ([\d.]+) for/.exec(rollout) ?? [];
  const [, mass] = /`profile:crystalkv_missed_mass:mean_rate1h` \| below ([\d.]+) /.exec(rollout) ?? [];
  const [, longer] = /`profile:crystalkv_length:ratio_rate1h` \| at most ([\d.]+) /.exec(rollout) ?? [];
  const [, refused] = /`engine:crystalkv_plans_refused:ratio_rate10m` \| at most ([\d.]+),/.exec(rollout) ?? [];
  const [, probes] = /crystalkv_finished_tokens_total` \| below ([\d.]+) /.exec(rollout) ?? [];
  const alerts = read('deploy/prometheus/rules/alerts.yml');
  assert.ok(alerts.includes(`crystalkv_length:ratio_rate1h > ${longer}\n`));
  assert.ok(alerts.includes(`crystalkv_plans_refused:ratio_rate10m > ${refused}\n`));
  assert.ok(alerts.includes(`crystalkv_regret:ratio_rate1h{judged="tokens"} > ${tokens}\n`));
  assert.ok(alerts.includes(`crystalkv_regret:ratio_rate1h{judged="blocks"} > ${blocks}\n`));
  assert.ok(alerts.includes(`crystalkv_missed_mass:mean_rate1h > ${mass}\n`));
  const rowOf = (wanted: string) =>
    kvSavings.rows.find(({ title }) => title === wanted)?.panels.map((panel) => panel.build()) ?? [];
  const [glance, costs] = [rowOf('At a glance'), rowOf('What it costs')];
  for (const [title, threshold] of [
    ['Regret', tokens],
    ['Regret of whole blocks', blocks],
    ['Missed mass', mass],
    ['Length ratio', longer],
    ['Probe share of tokens', probes],
  ]) {
    const panel = costs.find((one) => one.title === title);
    const red = panel?.fieldConfig?.defaults.thresholds?.steps.find(({ color }) => color === 'red');
    assert.equal(red?.value, Number(threshold), title);
    const shown = glance.find((one) => one.title === title);
    if (shown !== undefined)
      assert.deepEqual(shown.fieldConfig?.defaults.thresholds, panel?.fieldConfig?.defaults.thresholds);
  }
  assert.deepEqual(
    glance.map(({ title }) => title),
    [
      'Memory saved now',
      'Share of full caches held',
      'Share of the full-cache peak',
      'Length ratio',
      'Missed mass',
      'Preemptions',
    ],
  );
});

test('every stage of the rollout guide is a configuration that the policy service takes', () => {
  const stages = [...rollout.matchAll(/```yaml\n(.*?)```/gs)].map(([, text]) => parse(text as string));
  assert.equal(stages.length, 3);
  for (const file of stages) {
    const service = loadSection('policy_service', policyServiceSchema, file, {});
    settingsOf({ service, profiles: loadSection('profiles', profilesSchema, file, {}) });
  }
});

/** GitHub's anchor of a heading. */
const anchor = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

test('every file and heading that a document links to exists', () => {
  const documents = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  const paths = [
    'README.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'CHANGELOG.md',
    'model/README.md',
    'vllm-plugin/README.md',
  ];
  for (const path of [...paths, ...documents.map((name) => `docs/${name}`)]) {
    for (const [, target = '', heading] of read(path).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const file = target === '' ? path : join(dirname(path), target);
      assert.ok(existsSync(join(ROOT, file)), `${path}: ${target}`);
      if (heading === undefined) continue;
      const headings = [...read(file).matchAll(/^#+ (.+)$/gm)].map(([, text]) => anchor(text as string));
      assert.ok(headings.includes(heading), `${path}: ${target}#${heading}`);
    }
  }
});

test('every decision has the next number, a title, a date and at most five lines', () => {
  const decisions = read('docs/decisions.md').split(/^## /m).slice(1);
  assert.ok(decisions.length >= 38);
  for (const [i, decision] of decisions.entries()) {
    const [title = '', ...lines] = decision.trimEnd().split('\n');
    assert.match(title, new RegExp(`^${i + 1}\\. \\S`));
    assert.match(lines[0] ?? '', /^20\d\d-\d\d-\d\d\. /, title);
    assert.ok(lines.length <= 5, `${title}: ${lines.length} lines`);
  }
});
