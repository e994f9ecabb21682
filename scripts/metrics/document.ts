import { metricsOf } from '../../deploy/grafana/metrics-of.ts';
import { NOT_SHOWN } from '../../deploy/grafana/not-shown.ts';
import { panelQueries, ruleQueries } from '../../deploy/grafana/queries.ts';
import type { ExportedMetric, Exporter } from './exported.ts';

const PARTS_OF_HISTOGRAMS = /_(?:bucket|sum|count)$/;

/** The places that read a metric, by the name under which it is registered. */
export function placesOf(metrics: readonly ExportedMetric[]): Map<string, string[]> {
  const histograms = new Set(metrics.filter(({ type }) => type === 'histogram').map(({ name }) => name));
  const places = new Map<string, string[]>();
  for (const { place, expression } of [...panelQueries(), ...ruleQueries()]) {
    for (const written of metricsOf(expression)) {
      const base = written.replace(PARTS_OF_HISTOGRAMS, '');
      const name = histograms.has(base) ? base : written;
      places.set(name, [...new Set([...(places.get(name) ?? []), place])]);
    }
  }
  return places;
}

/** `docs/metrics.md`. */
export function metricsDocument(exporters: readonly Exporter[]): string {
  const places = placesOf(exporters.flatMap(({ metrics }) => metrics));
  const shownAt = (name: string) => {
    const at = places.get(name);
    if (at !== undefined) return at.join('; ');
    return `not shown: ${NOT_SHOWN[name] ?? 'nobody has said why'}`;
  };
  const sections = exporters.map(({ title, where, metrics }) => {
    const rows = metrics.map(
      ({ name, type, labels, help }) =>
        `| \`${name}\` | ${type} | ${labels.join(', ')} | ${cell(help)} | ${cell(shownAt(name))} |`,
    );
    return [
      `## ${title}`,
      `Read at ${where}.`,
      '',
      '| metric | type | labels | what | where it is shown |',
      '|---|---|---|---|---|',
      ...rows,
      '',
    ].join('\n');
  });
  return [
    '# Metrics',
    '',
    'Made by `make gen` from the code that registers the metrics; do not edit. Units are in the names. Labels have few values:',
    'engines, profiles, policies, phases and outcomes, never requests, keys or texts. Histograms have the series `_bucket`,',
    '`_sum` and `_count`. Dashboards are in `deploy/grafana/dashboards/`, rules in `deploy/prometheus/rules/`.',
    '',
    ...sections,
  ].join('\n');
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
