import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog';
import {
  BigValueColorMode,
  BigValueGraphMode,
  GraphGradientMode,
  GraphThresholdsStyleConfigBuilder,
  GraphThresholdsStyleMode,
  LegendDisplayMode,
  LegendPlacement,
  ReduceDataOptionsBuilder,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common';
import { type Panel, ThresholdsConfigBuilder, ThresholdsMode } from '@grafana/grafana-foundation-sdk/dashboard';
import { DataqueryBuilder } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as TimeSeriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries';
import type { Query } from './query.ts';

/** Whatever Prometheus the reader has chosen: no uid is fixed. */
export const DATASOURCE = { type: 'prometheus', uid: '$datasource' } as const;

/** Grafana's grid has 24 columns. */
const FULL_WIDTH = 24;

export interface PanelSpec {
  title: string;
  /** The question that the panel answers, and how to read it. */
  description: string;
  unit: string;
  /** What to draw, and the name of its lines. */
  queries: readonly (readonly [query: Query, legend: string])[];
  /** Panels beside each other; a row of a dashboard is filled from left to right. */
  columns?: 2 | 3 | 4 | 6;
  /** From here on a value is bad. */
  badFrom?: number;
  /** Up to here a value is bad. */
  badUpTo?: number;
  /** Highest value that is possible. */
  max?: number;
}

export interface ChartSpec extends PanelSpec {
  /** Lines on top of each other: only what may be added up. */
  stack?: boolean;
}

/** Lines over time. */
export function chart(spec: ChartSpec): Builder<Panel> {
  const { columns = 3, badFrom, stack = false } = spec;
  const panel = new TimeSeriesBuilder()
    .title(spec.title)
    .description(spec.description)
    .datasource(DATASOURCE)
    .unit(spec.unit)
    .min(0)
    .span(FULL_WIDTH / columns)
    .height(8)
    .targets(targets(spec, false))
    .lineWidth(1)
    .fillOpacity(stack ? 30 : 8)
    .gradientMode(GraphGradientMode.None)
    .showPoints(VisibilityMode.Never)
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true)
        .calcs([]),
    )
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending));
  if (spec.max !== undefined) panel.max(spec.max);
  if (stack) panel.stacking(new StackingConfigBuilder().mode(StackingMode.Normal).group('A'));
  if (badFrom !== undefined) {
    panel
      .thresholds(thresholds(spec))
      .thresholdsStyle(new GraphThresholdsStyleConfigBuilder().mode(GraphThresholdsStyleMode.Dashed));
  }
  return panel;
}

/** One number for each line: as it is now, or over the whole time range where the query says so. */
export function figure(spec: PanelSpec): Builder<Panel> {
  const { columns = 6 } = spec;
  const colored = spec.badFrom !== undefined || spec.badUpTo !== undefined;
  const panel = new StatBuilder()
    .title(spec.title)
    .description(spec.description)
    .datasource(DATASOURCE)
    .unit(spec.unit)
    .span(FULL_WIDTH / columns)
    .height(4)
    .targets(targets(spec, true))
    .thresholds(thresholds(spec))
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false))
    .graphMode(BigValueGraphMode.None)
    .colorMode(colored ? BigValueColorMode.Value : BigValueColorMode.None)
    .noValue('none');
  if (spec.max !== undefined) panel.max(spec.max);
  return panel;
}

function targets({ queries }: PanelSpec, instant: boolean): Builder<Dataquery>[] {
  return queries.map(([query, legend], index) => {
    const target = new DataqueryBuilder()
      .datasource(DATASOURCE)
      .expr(`${query}`)
      .legendFormat(legend)
      .refId(String.fromCharCode(65 + index));
    return instant ? target.instant() : target.range();
  });
}

function thresholds({ badFrom, badUpTo }: PanelSpec): ThresholdsConfigBuilder {
  const steps: { value: number | null; color: string }[] = [
    { value: null, color: badUpTo === undefined ? 'green' : 'red' },
  ];
  if (badUpTo !== undefined) steps.push({ value: badUpTo, color: 'green' });
  if (badFrom !== undefined) steps.push({ value: badFrom, color: 'red' });
  return new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps);
}
