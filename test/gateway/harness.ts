import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { gatewaySchema } from '../../gateway/config.ts';
import { createGateway, type Gateway } from '../../gateway/gateway.ts';
import { readMetrics, valueOfSeries } from '../../scripts/metrics/text.ts';
import { until } from '../support/until.ts';
import { createUpstream, type Script, type Upstream } from './upstream.ts';

export interface Setup {
  gateway: Gateway;
  upstream: Upstream;
  /** Lines that the gateway logged. */
  log: Record<string, unknown>[];
}

/** A gateway in front of one scripted server; both end with the test. `config` is what the section would hold. */
export async function setup(
  t: TestContext,
  script: Script,
  config: Record<string, unknown> = {},
  profiles: readonly string[] = [],
): Promise<Setup> {
  const upstream = await createUpstream(script);
  const { gateway, log } = await startGateway({ backends: [upstream.url], ...config }, profiles);
  t.after(async () => {
    await gateway.close();
    await upstream.close();
  });
  return { gateway, upstream, log };
}

/** A gateway alone; the caller closes it. Nothing that runs is waited for unless `drain_ms` says so. */
export async function startGateway(
  config: Record<string, unknown>,
  profiles: readonly string[] = [],
): Promise<Pick<Setup, 'gateway' | 'log'>> {
  const log: Record<string, unknown>[] = [];
  const logger = pino({ level: 'info' }, { write: (line: string) => void log.push(JSON.parse(line)) });
  // A machine that is busy with other tests must not make this gateway shed load.
  const admission = { event_loop_delay_ms: 0, ...(config['admission'] as object | undefined) };
  const parsed = gatewaySchema.parse({ port: 0, drain_ms: 0, ...config, admission });
  return { gateway: await createGateway(parsed, { logger, profiles }), log };
}

export function post(gateway: Gateway, path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(`${gateway.url}${path}`, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
    headers: { 'content-type': 'application/json', ...(init.headers as Record<string, string> | undefined) },
  });
}

export function chat(gateway: Gateway, body: unknown = { model: 'm', messages: [] }, init: RequestInit = {}) {
  return post(gateway, '/v1/chat/completions', body, init);
}

/** The value of one series, such as `name{route="/x"}`; undefined when the series is not there. */
export async function metric(gateway: Gateway, series: string): Promise<number | undefined> {
  return valueOfSeries(await readMetrics(gateway.metricsUrl), series);
}

/** Waits for a series to reach a value: records close just after the client has read the answer. */
export function metricReaches(gateway: Gateway, series: string, value: number): Promise<boolean> {
  return until(async () => (await metric(gateway, series)) === value, `${series} is ${value}`);
}

export interface ErrorAnswer {
  error: { message: string; type: string; param: string | null; code: number };
}
