import type { TestContext } from 'node:test';
import { gatewaySchema } from '../../gateway/config.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import { until } from '../support/until.ts';
import { chat, metric, startGateway } from './harness.ts';
import { createUpstream, json, type Script, type Upstream } from './upstream.ts';

export interface Fleet {
  gateway: Gateway;
  upstreams: Upstream[];
  log: Record<string, unknown>[];
  /** How many requests each has received. */
  counts(): number[];
  /** Takes a configuration as the section would hold it, with the upstreams as backends unless it says others. */
  reload(config: Record<string, unknown>): void;
}

/** Answers with the name that it is given, so that it is seen who answered. */
export const named = (name: string): Script => json(JSON.stringify({ name }));

/** A gateway in front of several scripted servers; all end with the test. */
export async function fleet(
  t: TestContext,
  scripts: readonly Script[],
  config: Record<string, unknown> = {},
): Promise<Fleet> {
  const upstreams = await Promise.all(scripts.map((script) => createUpstream(script)));
  const base = { port: 0, drain_ms: 0, backends: upstreams.map(({ url }) => url) };
  const { gateway, log } = await startGateway({ ...base, ...config });
  t.after(async () => {
    await gateway.close();
    await Promise.all(upstreams.map((upstream) => upstream.close()));
  });
  return {
    gateway,
    upstreams,
    log,
    counts: () => upstreams.map(({ received }) => received.length),
    reload: (next) => gateway.reload(gatewaySchema.parse({ ...base, ...next })),
  };
}

/** Who answers a chat request; the status when it is not 200. */
export async function whoAnswers(gateway: Gateway, body: unknown): Promise<string | number> {
  const response = await chat(gateway, body);
  const answer = (await response.json()) as { name?: string };
  return response.status === 200 ? (answer.name ?? '') : response.status;
}

/** Waits until the gateway knows which models are served: it answers 404 for one that is not. */
export function modelsKnown(gateway: Gateway): Promise<unknown> {
  return until(async () => (await whoAnswers(gateway, { model: 'nobody-serves-this' })) === 404, 'models are known');
}

/** Waits for what health checks say of a backend. */
export function isHealthy(gateway: Gateway, { url }: Upstream, healthy: boolean): Promise<unknown> {
  const series = `crystalkv_gateway_backend_healthy{backend="${url}"}`;
  return until(async () => (await metric(gateway, series)) === (healthy ? 1 : 0), `${url} healthy: ${healthy}`);
}
