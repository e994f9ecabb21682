import {
  type Builder,
  div,
  type Expr,
  histogramQuantile,
  increase,
  mul,
  rate,
  sum,
  type VectorExprBuilder,
  vector,
} from '@grafana/promql-builder';

export type Query = Builder<Expr>;

/** Label values that a series must have: exactly, or as a regular expression where it begins with `~`. */
export type Filters = Readonly<Record<string, string>>;

/** The series of a metric that match. A fresh builder each time: builders change when they are used. */
export function series(metric: string, filters: Filters = {}): VectorExprBuilder {
  const builder = vector(metric);
  for (const [label, value] of Object.entries(filters)) {
    if (value.startsWith('~')) builder.labelMatchRegexp(label, value.slice(1));
    else builder.label(label, value);
  }
  return builder;
}

/** The policy service's series of the chosen engines. */
export const ofEngines = (metric: string, filters: Filters = {}): VectorExprBuilder =>
  series(metric, { engine: '~$engine', ...filters });

/** The series of the chosen models and engines, as vLLM labels them: vLLM's own, the plugin's, the embedded engine's. */
export const ofModels = (metric: string, filters: Filters = {}): VectorExprBuilder =>
  series(metric, { model_name: '~$model', engine: '~$engine', ...filters });

/** Adds the label `model`, and keeps the chosen ones. Only for what holds `instance` and `engine`. */
export const withModel = (query: Query): Query =>
  mul(query, ofEngines('crystalkv_engine_info', { model: '~$model' }))
    .on(['instance', 'engine'])
    .groupLeft(['model']);

/** Per second, over the shortest window that the resolution allows. */
export const perSecond = (vector: VectorExprBuilder): Query => rate(vector.range('$__rate_interval'));

/** How much a counter grew in the dashboard's time range. */
export const inRange = (vector: VectorExprBuilder): Query => increase(vector.range('$__range'));

export const sumBy = (labels: readonly string[], query: Query): Query => sum(query).by([...labels]);

export const ratio = (above: Query, below: Query): Query => div(above, below);

/** A quantile of a histogram, one line for each value of the labels. */
export const quantile = (q: number, histogram: VectorExprBuilder, labels: readonly string[] = []): Query =>
  histogramQuantile(q, sumBy([...labels, 'le'], perSecond(histogram)));
