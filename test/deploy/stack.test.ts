import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { PolicyPeer } from '../../gateway/fleet/policy-peer.ts';
import { type Child, startChild } from '../../scripts/child.ts';
import { readMetrics, valueOfSeries } from '../../scripts/metrics/text.ts';
import { freePorts } from '../../scripts/ports.ts';
import { ROOT } from '../../scripts/processes.ts';
import { runCommand } from '../../scripts/testing/command.ts';
import { loadCompose } from './compose.ts';
import { type Container, run } from './images/container.ts';
import { build, type Image, inside } from './images/image.ts';
import { ourBuilder } from './images/ours.ts';

/** The services of docker-compose.yml as processes, in the order and with the words of the file; only names and ports of a
 * container's network are put on loopback. */
const compose = loadCompose();
const builder = ourBuilder();
const shared = mkdtempSync(join(tmpdir(), 'crystal-kv-volume-'));
chmodSync(shared, 0o755);
const [grpc, metrics, engine, gateway, redis, scrape = 0] = (await freePorts(6)) as [
  ...[number, number, number, number, number, number],
];
const ADDRESSES: Readonly<Record<string, string>> = {
  'policy-service:50051': `127.0.0.1:${grpc}`,
  'backend:8000': `127.0.0.1:${engine}`,
  'redis:6379': `127.0.0.1:${redis}`,
  '0.0.0.0': '127.0.0.1',
  '/run/crystal-kv': shared,
};
const PORTS = {
  CRYSTALKV_POLICY_SERVICE_PORT: `${grpc}`,
  CRYSTALKV_POLICY_SERVICE_METRICS_PORT: `${metrics}`,
  CRYSTALKV_ENGINE_PORT: `${engine}`,
  CRYSTALKV_GATEWAY_PORT: `${gateway}`,
  CRYSTALKV_GATEWAY_METRICS_PORT: `${scrape}`,
};
const moved = (text: string) => Object.entries(ADDRESSES).reduce((it, [from, to]) => it.replaceAll(from, to), text);
const running: Container[] = [];
let redisServer: Child | undefined;

after(async () => {
  for (const container of running.reverse()) await container.stop();
  await redisServer?.stop();
  builder.close();
  rmSync(shared, { recursive: true, force: true });
});

/** The image of a service, with the configuration that the file mounts. */
async function imageOf(name: string): Promise<Image> {
  const service = compose.services[name];
  const image = await build(builder, service?.build?.target ?? '');
  for (const volume of service?.volumes ?? []) {
    const [source = '', target = ''] = volume.split(':');
    if (source.startsWith('.')) cpSync(join(ROOT, source), inside(image, target), { recursive: true });
  }
  return image;
}

async function start(name: string): Promise<Container> {
  const service = compose.services[name];
  const entries = Object.entries(service?.environment ?? {}).map(([key, value]) => [key, moved(value)] as const);
  const command = Array.isArray(service?.command) ? { command: service.command.map(moved) } : {};
  const image = await imageOf(name);
  const user = service?.user ?? image.user;
  return run({ ...image, user }, { env: { ...Object.fromEntries(entries), ...PORTS }, ...command });
}

const needsRedis = (await runCommand('redis-server', ['--version'])).code === 0 ? false : 'needs redis-server';

test('the services of the file, started as it says, answer a chat and evict', { skip: needsRedis }, async () => {
  const token = await start('token');
  assert.equal(await token.ended(), 0, token.output());
  const secret = readFileSync(join(shared, 'token'), 'utf8');
  assert.match(secret, /^[\w-]{43}\n$/);
  assert.equal(statSync(join(shared, 'token')).mode & 0o777, 0o444);
  const again = await start('token');
  assert.equal(await again.ended(), 0, again.output());
  assert.equal(readFileSync(join(shared, 'token'), 'utf8'), secret, 'a second start keeps the token');

  const data = join(shared, 'redis');
  mkdirSync(data);
  const command = (compose.services['redis']?.command ?? []) as string[];
  const place = ['--port', `${redis}`, '--bind', '127.0.0.1', '--dir', data];
  redisServer = await startChild([...command, ...place], { stdio: 'ignore' });
  for (const name of ['policy-service', 'engine', 'gateway']) {
    const container = await start(name);
    running.push(container);
    await container.healthy();
    assert.ok(!container.output().includes(secret.trim()), `${name} does not log the token`);
  }

  const content = 'L3 yew 0 8 : L2 onyx 1 yew : L1 gold yew yew : Q1 yew Q2 gold Q3 onyx';
  const body = {
    model: 'crystal-mini',
    messages: [{ role: 'user', content }],
    crystal_kv: { profile: 'crystal', budget_tokens: 16 },
  };
  const answer = await fetch(`http://127.0.0.1:${gateway}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  assert.match((JSON.parse(text) as { choices: [{ message: { content: string } }] }).choices[0].message.content, /\d/);
  const samples = await readMetrics(`http://127.0.0.1:${metrics}/metrics`);
  assert.equal(valueOfSeries(samples, 'crystalkv_stream_up{engine="embedded"}'), 1, 'the engine got in with the token');
});

test('gRPC answers whoever has the token, and nobody else', { skip: needsRedis }, async () => {
  const token = readFileSync(join(shared, 'token'), 'utf8').trim();
  const friend = new PolicyPeer({ address: `127.0.0.1:${grpc}`, token });
  const stranger = new PolicyPeer({ address: `127.0.0.1:${grpc}` });
  try {
    assert.deepEqual(
      (await friend.engines()).map(({ engineId }) => engineId),
      ['embedded'],
    );
    await assert.rejects(stranger.engines(), /UNAUTHENTICATED/);
  } finally {
    friend.close();
    stranger.close();
  }
});
