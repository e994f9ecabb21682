import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { DASHBOARDS } from './all.ts';
import { toDashboard } from './dashboard.ts';

const RULES = fileURLToPath(new URL('../prometheus/rules/', import.meta.url));
export const RULE_FILES = ['recording.yml', 'alerts.yml'].map((name) => `${RULES}${name}`);

/** A query of a panel or a rule. */
export interface PlacedQuery {
  /** `KV savings: Regret`, `alert CrystalKvRegretHigh`, `record ...`. */
  place: string;
  kind: 'panel' | 'record' | 'alert';
  expression: string;
}

/** What the parts of Grafana's model that hold queries look like. */
interface QueryPanel {
  title?: string;
  targets?: readonly { expr: string }[];
}

interface RuleFile {
  groups: readonly { rules: readonly { record?: string; alert?: string; expr: string }[] }[];
}

/** Every query of every panel, variables as they are written. */
export function panelQueries(): PlacedQuery[] {
  return DASHBOARDS.flatMap((spec) => {
    const panels = (toDashboard(spec).panels ?? []) as readonly QueryPanel[];
    return panels.flatMap(({ title = '', targets = [] }) =>
      targets.map(({ expr }) => ({ place: `${spec.title}: ${title}`, kind: 'panel' as const, expression: expr })),
    );
  });
}

/** Every expression of the recording and alert rules. */
export function ruleQueries(): PlacedQuery[] {
  return RULE_FILES.flatMap((file) => {
    const { groups } = parse(readFileSync(file, 'utf8'), { merge: true }) as RuleFile;
    return groups.flatMap(({ rules }) =>
      rules.map(
        ({ record, alert, expr }): PlacedQuery =>
          record === undefined
            ? { place: `alert ${alert}`, kind: 'alert', expression: expr }
            : { place: `record ${record}`, kind: 'record', expression: expr },
      ),
    );
  });
}
