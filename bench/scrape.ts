import { once } from 'node:events';
import { get, request } from 'node:http';
import { loadavg } from 'node:os';
import { buffer } from 'node:stream/consumers';
import { listen, metricsHandler } from '../common/http.ts';
import { createLogger } from '../common/logger.ts';
import { collectProcessMetrics } from '../common/process-metrics.ts';
import { gatewaySchema } from '../gateway/config.ts';
import { createGateway } from '../gateway/gateway.ts';
import { policyServiceSchema, settingsOf } from '../policy-service/config.ts';
import { profilesSchema } from '../policy-service/request/profiles.ts';
import { createEngines } from '../policy-service/session/engines.ts';
import { type AttachRequest, Capability, Mode, Phase } from '../proto/gen/crystalkv/v1/policy.ts';
import { type BenchRun, runBench } from './program.ts';
import { quantile, round } from './statistics.ts';

/**
 * What a scrape costs while many requests are live: GET /metrics over HTTP, from the request to its last byte, with
 * server and reader in this process; and the processor time of both, which other load on the machine does not change.
 * The policy service knows the requests of one engine, in four profiles, each with holes; the gateway holds as many streams open. The plugin and the embedded engine read counters only, whatever runs.
 */
const REQUESTS = 500;
const SCRAPES = 300;
const WARMUP = 50;
const BLOCK_SIZE = 16;
const BLOCKS = 256;
const HOLES = 160;

const logger = createLogger('bench', 'silent');

await runBench({
  name: 'scrape',
  about: `Measures what a scrape of /metrics costs the policy service and the gateway while ${REQUESTS} requests are live.`,
  options: {},
  records: true,
  run: (_, run) => measure(run),
});

async function measure({ report }: BenchRun): Promise<void> {
  const measured = { policy_service: await scrapePolicyService(), gateway: await scrapeGateway() };
  const figures: Record<string, number> = {};
  for (const [part, { live, bytes, floor }] of Object.entries(measured)) {
    figures[`${part}_cpu_ms`] = round(live.cpuMs);
    figures[`${part}_p50_ms`] = round(quantile(live.times, 0.5));
    figures[`${part}_p99_ms`] = round(quantile(live.times, 0.99));
    // an answer of the same length that is made beforehand: what HTTP costs by itself
    figures[`${part}_http_alone_cpu_ms`] = round(floor.cpuMs);
    figures[`${part}_http_alone_p50_ms`] = round(quantile(floor.times, 0.5));
    figures[`${part}_bytes`] = bytes;
  }
  const conditions = { live_requests: REQUESTS, scrapes: SCRAPES, load_average_1m: round(loadavg()[0] ?? 0, 2) };
  process.stdout.write(`${JSON.stringify({ ...conditions, ...figures }, null, 2)}\n`);
  report({ conditions, figures, rows: Object.values(measured).map(({ live }) => live.times) });
}

async function scrapePolicyService() {
  const profiles = { default: { policy: 'crystal' }, crf: { policy: 'crf' }, window: { policy: 'window' } };
  const shadow = { shadow: { policy: 'crystal', mode: 'shadow' } };
  const settings = settingsOf({
    service: policyServiceSchema.parse({}),
    profiles: profilesSchema.parse({ ...profiles, ...shadow }),
  });
  const engines = createEngines({ settings: { current: settings }, logger });
  const stream = engines.open({
    send: () => {},
    isBlocked: () => false,
    refuse({ details }) {
      throw new Error(details);
    },
  });
  const send = (message: NonNullable<AttachRequest['message']>) => stream.receive({ message });
  send({
    $case: 'hello',
    value: {
      protocolMin: 1,
      protocolMax: 1,
      engineId: 'bench',
      instanceId: 'bench',
      model: 'bench',
      blockSize: BLOCK_SIZE,
      bytesPerBlock: 65_536n,
      poolBlocks: REQUESTS * BLOCKS,
      layers: 1,
      headGroups: 1,
      endOfThinking: [],
      probeSuffixTokens: 0,
      segmentMarkerTokenIds: [],
      capabilities: [Capability.CAPABILITY_EVICT],
      sinkTokens: 16,
      recentTokens: 64,
      lockstep: false,
      statistics: [],
    },
  });
  const names = ['default', 'crf', 'window', 'shadow'];
  const handles = Array.from({ length: REQUESTS }, (_, index) => index + 1);
  const computedTokens = BLOCKS * BLOCK_SIZE;
  for (const handle of handles) {
    const options = { profile: names[handle % names.length] ?? '', mode: Mode.MODE_UNSPECIFIED };
    const evicted = Array.from({ length: HOLES }, (_, index) => 8 + index);
    const started = { handle, crystalkvId: `request-${handle}`, choiceIndex: 0, promptTokens: 128, epoch: 0 };
    send({ $case: 'started', value: { ...started, options, evicted, computedTokens } });
  }
  const pool = { freeBlocks: 0, totalBlocks: REQUESTS * BLOCKS, waiting: 3, running: REQUESTS, preemptions: 0n };
  const requests = handles.map((handle) => ({
    handle,
    epoch: 0,
    computedTokens,
    phase: handle % 3 === 0 ? Phase.PHASE_ANSWER : Phase.PHASE_THINKING,
    segmentStarts: [],
    masses: Buffer.alloc(0),
  }));
  send({ $case: 'step', value: { step: 1n, pool, requests, more: false } });
  collectProcessMetrics(engines.metrics.registry, 'policy-service');
  const server = await listen(metricsHandler(engines.metrics.registry), '127.0.0.1', 0);
  const result = await scrape(`${server.url}/metrics`);
  stream.close();
  server.server.closeAllConnections();
  await server.close();
  return result;
}

async function scrapeGateway() {
  const body = JSON.stringify({ model: 'bench', messages: [{ role: 'user', content: 'hello' }], stream: true });
  const upstream = await listen(
    (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: {"choices":[]}\n\n');
    },
    '127.0.0.1',
    0,
  );
  const config = gatewaySchema.parse({ port: 0, drain_ms: 1, backends: [{ url: upstream.url }] });
  const gateway = await createGateway(config, { logger, profiles: [] });
  collectProcessMetrics(gateway.registry, 'gateway');
  const open = Array.from({ length: REQUESTS }, async () => {
    const headers = { 'content-type': 'application/json' };
    const sent = request(`${gateway.url}/v1/chat/completions`, { method: 'POST', agent: false, headers });
    sent.on('error', () => {});
    sent.end(body);
    const [response] = await once(sent, 'response');
    await once(response, 'data');
    response.on('error', () => {});
    return sent;
  });
  const streams = await Promise.all(open);
  const result = await scrape(gateway.metricsUrl);
  if (!result.text.includes(`crystalkv_gateway_inflight ${REQUESTS}\n`)) throw new Error('not all requests were live');
  for (const stream of streams) stream.destroy();
  await gateway.close();
  upstream.server.closeAllConnections();
  await upstream.close();
  return result;
}

async function scrape(url: string) {
  const text = (await read(url)).toString();
  const live = await timed(url);
  const ready = await listen((_request, response) => response.end(text), '127.0.0.1', 0);
  const floor = await timed(`${ready.url}/metrics`);
  ready.server.closeAllConnections();
  await ready.close();
  return { live, floor, text, bytes: Buffer.byteLength(text) };
}

async function timed(url: string): Promise<{ times: number[]; cpuMs: number }> {
  const times: number[] = [];
  let cpu = process.cpuUsage();
  for (let i = 0; i < WARMUP + SCRAPES; i += 1) {
    if (i === WARMUP) cpu = process.cpuUsage();
    const begin = performance.now();
    await read(url);
    if (i >= WARMUP) times.push(performance.now() - begin);
  }
  const { user, system } = process.cpuUsage(cpu);
  return { times, cpuMs: (user + system) / 1000 / SCRAPES };
}

async function read(url: string): Promise<Buffer> {
  const sent = get(url);
  const [response] = await once(sent, 'response');
  if (response.statusCode !== 200) throw new Error(`${url} answered ${response.statusCode}`);
  return await buffer(response);
}
