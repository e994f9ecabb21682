import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { RULE_FILES, ruleQueries } from '../../deploy/grafana/queries.ts';
import { ROOT } from '../../scripts/processes.ts';

const skip =
  spawnSync('promtool', ['--version']).error === undefined ? false : 'promtool is not installed (package prometheus)';

function promtool(...args: string[]): void {
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: ROOT, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
}

suite('the rules for Prometheus', () => {
  test('promtool accepts them', { skip }, () => promtool('check', 'rules', '--lint-fatal', ...RULE_FILES));

  test("promtool accepts the compose file's configuration", { skip }, () =>
    promtool('check', 'config', 'deploy/prometheus/prometheus.yml'),
  );

  test('fire when they should, and not when they should not', { skip }, () =>
    promtool('test', 'rules', 'test/dashboards/rules.promtool.yml'),
  );

  test('every alert has a case in which it fires, and one in which it does not', () => {
    const cases = readFileSync(join(ROOT, 'test/dashboards/rules.promtool.yml'), 'utf8');
    const alerts = ruleQueries().filter(({ kind }) => kind === 'alert');
    assert.ok(alerts.length > 0);
    for (const { place } of alerts) {
      const name = place.replace('alert ', '');
      assert.ok(new RegExp(`alertname: ${name}\\n`).test(cases), `${name} never fires`);
      assert.ok(new RegExp(`alertname: ${name},.*exp_alerts: \\[\\]`).test(cases), `${name} is never silent`);
    }
  });
});
