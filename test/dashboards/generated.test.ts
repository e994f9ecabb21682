import assert from 'node:assert/strict';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { dashboardFiles } from '../../deploy/grafana/all.ts';
import { NOT_SHOWN } from '../../deploy/grafana/not-shown.ts';
import { metricsDocument, placesOf } from '../../scripts/metrics/document.ts';
import { exportedMetrics } from '../../scripts/metrics/exported.ts';
import { ROOT } from '../../scripts/processes.ts';

/** Names that others chose: vLLM's, and prom-client's of a process. */
const FOREIGN = /^(?:vllm:|nodejs_|process_)/;
const FOLDER = join(ROOT, 'deploy/grafana/dashboards');

/** Shows only the lines that differ. */
function assertFresh(committed: string, generated: string): void {
  const lines = { committed: committed.split('\n'), generated: generated.split('\n') };
  const without = (these: string[], those: string[]) => {
    const known = new Set(those);
    return these.filter((line) => !known.has(line));
  };
  assert.deepEqual(
    without(lines.committed, lines.generated),
    without(lines.generated, lines.committed),
    'run make gen',
  );
  assert.ok(committed === generated, 'the order of lines differs: run make gen');
}

suite('generated dashboards and documents', () => {
  test('the committed dashboards are what deploy/grafana gives, and there are no others', () => {
    const files = dashboardFiles();
    assert.deepEqual(readdirSync(FOLDER).sort(), files.map(([name]) => name).sort());
    for (const [name, text] of files) assertFresh(readFileSync(join(FOLDER, name), 'utf8'), text);
  });

  test('docs/metrics.md is what the code that registers the metrics gives', async () => {
    const text = metricsDocument(await exportedMetrics());
    assertFresh(readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8'), text);
  });
});

suite('every metric of this project', async () => {
  const exporters = await exportedMetrics();
  const metrics = exporters.flatMap((exporter) => exporter.metrics);
  const names = new Set(metrics.map(({ name }) => name));
  const places = placesOf(metrics);

  test('is shown on a dashboard, read by a rule, or said not to be shown', () => {
    assert.deepEqual(
      [...names].filter((name) => !places.has(name) && NOT_SHOWN[name] === undefined),
      [],
    );
  });

  test('that is said not to be shown exists and is not shown', () => {
    assert.deepEqual(
      Object.keys(NOT_SHOWN).filter((name) => !names.has(name) || places.has(name)),
      [],
    );
  });

  test('is made where this list finds it', () => {
    const sources = globSync('{gateway,policy-service,engine,common}/**/*.ts', { cwd: ROOT });
    const text = (file: string) => readFileSync(join(ROOT, file), 'utf8');
    const makers = sources.filter((file) => /^import \{[^}]*\b(?:Counter|Gauge|Histogram|Summary)\b/m.test(text(file)));
    const known = /^(?:gateway|policy-service)\/observe\/|^engine\/http\/metrics\.ts$|^common\/process-metrics\.ts$/;
    assert.deepEqual(
      makers.filter((file) => !known.test(file)),
      [],
    );
    const named = sources.flatMap((file) => [...text(file).matchAll(/'(crystalkv_(?:gateway|engine)_\w+|vllm:\w+)'/g)]);
    assert.ok(named.length > 50);
    assert.deepEqual(
      named.map(([, name = '']) => name).filter((name) => !names.has(name)),
      [],
    );
  });

  test('that a query reads is exported, recorded by a rule, or one of vLLM', () => {
    const recorded = readFileSync(join(ROOT, 'deploy/prometheus/rules/recording.yml'), 'utf8');
    const vllm = readFileSync(join(ROOT, 'test/observability/recorded/vllm-2.prom'), 'utf8');
    const unknown = [...places.keys()].filter((name) => {
      if (names.has(name) || recorded.includes(`record: ${name}\n`)) return false;
      return !vllm.includes(`# TYPE ${name.replace(/_total$/, '')}`);
    });
    assert.deepEqual(unknown, []);
  });

  test('has a name with a unit or a count, a help text, and labels of few values', () => {
    const identities = /^(?:request|crystalkv|key|user|trace|session)_?id$/;
    for (const { name, type, labels, help } of metrics) {
      assert.equal(name.endsWith('_total') || FOREIGN.test(name), type === 'counter' || FOREIGN.test(name), name);
      assert.ok(help.length > 8, name);
      assert.deepEqual(
        labels.filter((label) => identities.test(label)),
        [],
        name,
      );
    }
  });
});
