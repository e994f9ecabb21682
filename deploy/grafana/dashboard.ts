import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import {
  CustomVariableBuilder,
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  type Panel,
  QueryVariableBuilder,
  RowBuilder,
  type VariableModel,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { DATASOURCE } from './panel.ts';

/** All dashboards of this project carry it; that is how they find each other. */
const TAG = 'crystal-kv';

export interface DashboardSpec {
  /** File name, and part of the uid. */
  name: string;
  title: string;
  description: string;
  /** Beside the datasource. */
  variables: readonly Builder<VariableModel>[];
  rows: readonly { title: string; panels: readonly Builder<Panel>[] }[];
}

export function toDashboard(spec: DashboardSpec): Dashboard {
  const builder = new DashboardBuilder(`Crystal-KV / ${spec.title}`)
    .uid(`crystal-kv-${spec.name}`)
    .description(spec.description)
    .tags([TAG])
    .timezone('browser')
    .time({ from: 'now-1h', to: 'now' })
    .refresh('10s')
    .editable()
    .tooltip(DashboardCursorSync.Crosshair)
    .link(
      new DashboardLinkBuilder('Crystal-KV')
        .type(DashboardLinkType.Dashboards)
        .tags([TAG])
        .tooltip('The other dashboards, with the same time range')
        .includeVars(true)
        .keepTime(true),
    )
    .withVariable(new DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'));
  for (const variable of spec.variables) builder.withVariable(variable);
  for (const { title, panels } of spec.rows) {
    builder.withRow(new RowBuilder(title));
    for (const panel of panels) builder.withPanel(panel);
  }
  const dashboard = builder.build();
  dashboard.panels?.forEach((panel, index) => {
    panel.id = index + 1;
  });
  return dashboard;
}

/** A variable whose values are those of a label; any number of them may be chosen, all at first. */
export function labelVariable(name: string, label: string, query: string): Builder<VariableModel> {
  return new QueryVariableBuilder(name)
    .label(label)
    .datasource(DATASOURCE)
    .query({ query, refId: `variable-${name}` })
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.*')
    .current({ selected: true, text: 'All', value: '$__all' });
}

/** One of several words that stand in queries as they are; the first at first. */
export function choiceVariable(name: string, label: string, choices: readonly string[]): Builder<VariableModel> {
  const [first = ''] = choices;
  return new CustomVariableBuilder(name)
    .label(label)
    .values(choices.join(','))
    .options(choices.map((value) => ({ selected: value === first, text: value, value })))
    .current({ selected: true, text: first, value: first });
}

/** Model and engine as the policy service knows them. */
export const attachedEngines = (): Builder<VariableModel>[] => [
  labelVariable('model', 'Model', 'label_values(crystalkv_engine_info, model)'),
  labelVariable('engine', 'Engine', 'label_values(crystalkv_engine_info{model=~"$model"}, engine)'),
];

/** Model and engine as vLLM labels them: the engine is a data-parallel rank. */
export const servedModels = (): Builder<VariableModel>[] => [
  labelVariable('model', 'Model', 'label_values(vllm:num_requests_running, model_name)'),
  labelVariable('engine', 'Engine', 'label_values(vllm:num_requests_running{model_name=~"$model"}, engine)'),
];
