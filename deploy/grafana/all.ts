import { type DashboardSpec, toDashboard } from './dashboard.ts';
import { engines } from './engines.ts';
import { gateway } from './gateway.ts';
import { kvSavings } from './kv-savings.ts';
import { policyService } from './policy-service.ts';

/** In the order in which they are read. */
export const DASHBOARDS: readonly DashboardSpec[] = [kvSavings, gateway, policyService, engines];

/** File names and contents, as Grafana's provisioning and its import take them. */
export function dashboardFiles(): (readonly [name: string, text: string])[] {
  return DASHBOARDS.map((spec) => [`${spec.name}.json`, `${JSON.stringify(toDashboard(spec), null, 2)}\n`]);
}
