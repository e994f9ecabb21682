import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { credentials, loadPackageDefinition, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';
import { POLICY_NAMES } from '../../policy-service/policies/registry.ts';
import { segmentMasses } from '../../policy-service/rpc/messages.ts';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import {
  type GetRequestResponse,
  type ListPoliciesResponse,
  type ListProfilesResponse,
  type ListRequestsResponse,
  Mode,
  Phase,
  type WatchResponse,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { engineFor, masses, row, ScriptedEngine, serviceFor, started, startService } from './scripted-engine.ts';

const PROTO = '../../node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto';
const profiles = { default: { policy: 'crf', controller: { type: 'fixed', budget_tokens: 96 } } };

suite('for people and the gateway', () => {
  let server: PolicyServer;
  let engine: ScriptedEngine;

  before(async () => {
    server = await startService({}, profiles);
    engine = new ScriptedEngine(server.address);
    await engine.greet();
    engine.start(started(1, { crystalkvId: 'abc', choiceIndex: 1 }));
    const plan = await engine.step(1, [row(1, 136, { segmentStarts: [32, 64], masses: masses(9, [3]) })]);
    engine.obey(plan);
    await engine.step(2, [row(1, 137, { masses: masses(8, [2]) })]);
  });
  after(async () => {
    engine.close();
    await server.close();
  });

  const get = (crystalkvId: string, choiceIndex: number) =>
    new Promise<GetRequestResponse>((resolve, reject) => {
      engine.client.getRequest({ crystalkvId, choiceIndex }, (error, response) =>
        error === null ? resolve(response) : reject(error),
      );
    });

  test('a request tells what is kept, and why', async () => {
    const { request } = await get('abc', 1);
    assert.ok(request);
    // Of nine blocks, block 2 is gone.
    assert.deepEqual([...request.keep], [0b11111011, 0b1]);
    assert.deepEqual([request.blocks, request.residentBlocks, request.evictedBlocks], [9, 8, 1]);
    assert.deepEqual([request.evictableFrom, request.evictableTo], [2, 6]);
    assert.equal(request.peakResidentBlocks, 9);
    assert.deepEqual(request.segmentStarts, [32, 64]);
    assert.equal(request.phase, Phase.PHASE_THINKING);
    assert.equal(request.mode, Mode.MODE_ENFORCE);
    assert.equal(request.policy, 'crf');
    assert.equal(request.keepValues.length, 9);
    assert.ok(request.keepValues[3]! > request.keepValues[5]!, 'block 3 was hit twice after its birth, block 5 never');
    assert.equal(request.cold, false);
    // Measured after 136 and after 137 tokens, each time with one block read.
    assert.deepEqual(request.blockHits, [0, 0, 0, 2, 0, 0, 0, 0, 0]);
    assert.deepEqual(request.lastHitTokens, [0, 0, 0, 137, 0, 0, 0, 0, 0]);
  });

  test('an unknown request, choice or engine is NOT_FOUND, an empty id INVALID_ARGUMENT', async () => {
    await assert.rejects(get('abc', 0), (error: ServiceError) => {
      assert.equal(error.code, status.NOT_FOUND);
      return /request "abc", choice 0 is unknown, or ended too long ago/.test(error.details);
    });
    await assert.rejects(get('', 0), { code: status.INVALID_ARGUMENT });
    const list = promisify(engine.client.listRequests.bind(engine.client) as never) as (
      request: object,
    ) => Promise<ListRequestsResponse>;
    const first = { pageSize: 0, pageToken: '' };
    await assert.rejects(list({ ...first, engineId: 'nobody' }), { code: status.NOT_FOUND });
    assert.equal((await list({ ...first, engineId: 'engine-a' })).requests.length, 1);
    assert.equal((await list({ ...first, engineId: '' })).requests.length, 1);
  });

  test('requests are listed by pages, each once, whatever ends between two', async () => {
    const many = new ScriptedEngine(server.address);
    await many.greet({ engineId: 'many', poolBlocks: 1_000_000 });
    for (let handle = 300; handle > 0; handle--) many.start(started(handle, { crystalkvId: `id-${handle}` }));
    await many.step(1, []);
    const list = (request: object) =>
      new Promise<ListRequestsResponse>((resolve, reject) =>
        many.client.listRequests(
          { engineId: 'many', pageSize: 0, pageToken: '', ...request },
          (error: ServiceError | null, response) => (error === null ? resolve(response) : reject(error)),
        ),
      );
    const first = await list({});
    assert.equal(first.requests.length, 256);
    const second = await list({ pageToken: first.nextPageToken });
    assert.deepEqual(
      [...first.requests, ...second.requests].map(({ handle }) => handle),
      Array.from({ length: 300 }, (_, index) => index + 1),
    );
    assert.equal(second.nextPageToken, '');
    assert.equal((await list({ pageSize: 7 })).requests.length, 7);
    await assert.rejects(list({ pageSize: 257 }), { code: status.INVALID_ARGUMENT });
    await assert.rejects(list({ pageToken: 'x' }), { code: status.INVALID_ARGUMENT });
    for (const handle of [1, 2])
      many.send({ $case: 'started', value: started(400 + handle, { computedTokens: 700_000 }) });
    await many.step(2, []);
    const long = await list({ pageToken: '300 many' });
    assert.equal(long.requests.length, 2);
    assert.ok((await list({ pageToken: '300 many' })).nextPageToken === '');
    many.close();
  });

  test('watching gives pool and request states again and again, until the watcher leaves', async () => {
    const call = engine.client.watch({ intervalMs: 50, crystalkvId: 'abc' });
    call.on('error', () => {});
    const seen: WatchResponse[] = [];
    for await (const state of call as AsyncIterable<WatchResponse>) {
      seen.push(state);
      if (seen.length === 3) break;
    }
    assert.equal(seen[2]?.engines[0]?.pool?.totalBlocks, 100);
    assert.equal(seen[2]?.engines[0]?.step, 2n);
    assert.equal(seen[2]?.requests[0]?.crystalkvId, 'abc');
  });

  test('what is in memory of each token is asked for, and told, while somebody watches it', async () => {
    const other = new ScriptedEngine(server.address);
    await other.greet({ engineId: 'held' });
    const call = other.client.watch({ intervalMs: 50, crystalkvId: 'tokens', held: true });
    call.on('error', () => {});
    assert.equal((await other.receive('configure')).reportHeld, true);
    other.start(started(1, { crystalkvId: 'tokens' }));
    const plan = await other.step(1, [row(1, 136)]);
    const held = { from: 32, shares: Buffer.from([0, 128, 255]), groups: Buffer.from([6, 4]) };
    other.ack(plan, [{ evicted: [2], held }]);
    for await (const { requests } of call as AsyncIterable<WatchResponse>) {
      if (requests[0]?.held === undefined) continue;
      assert.deepEqual(requests[0].held, held);
      break;
    }
    call.cancel();
    assert.equal((await other.receive('configure')).reportHeld, undefined);
    other.close();
  });

  test('a watch interval out of bounds is refused with the bounds', async () => {
    const call = engine.client.watch({ intervalMs: 10, crystalkvId: '' });
    const error = await new Promise<ServiceError>((resolve) => call.on('error', resolve as (error: Error) => void));
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.match(error.details, /interval_ms is 10; allowed: 50 to 10000/);
  });

  test('policies are those of the registry, profiles those of the configuration', async () => {
    const policies = await new Promise<ListPoliciesResponse>((resolve, reject) =>
      engine.client.listPolicies({}, (error, response) => (error === null ? resolve(response) : reject(error))),
    );
    assert.deepEqual(
      policies.policies.map(({ name }) => name),
      POLICY_NAMES,
    );
    const listed = await new Promise<ListProfilesResponse>((resolve, reject) =>
      engine.client.listProfiles({}, (error, response) => (error === null ? resolve(response) : reject(error))),
    );
    assert.deepEqual(listed.profiles, [
      {
        name: 'default',
        isDefault: true,
        policy: 'crf',
        controller: 'fixed',
        mode: Mode.MODE_ENFORCE,
        budgetTokens: 96,
      },
    ]);
  });

  test('reads are counted from the first look on where the policy itself tests no hits', async (context) => {
    const plain = await serviceFor(context, {}, { default: { policy: 'window' } });
    const peer = engineFor(context, plain.address);
    await peer.greet();
    peer.start(started(1, { crystalkvId: 'looked at' }));
    const look = () =>
      new Promise<GetRequestResponse>((resolve, reject) =>
        peer.client.getRequest({ crystalkvId: 'looked at', choiceIndex: 0 }, (error, response) =>
          error === null ? resolve(response) : reject(error),
        ),
      );
    await peer.step(1, [row(1, 136, { masses: masses(9, [3]) })]);
    assert.deepEqual((await look()).request?.blockHits, []);
    await peer.step(2, [row(1, 137, { masses: masses(9, [4]) })]);
    const { request } = await look();
    assert.deepEqual(request?.blockHits, [0, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert.deepEqual(request?.lastHitTokens, [0, 0, 0, 0, 137, 0, 0, 0, 0]);
  });

  test('a request that has ended is told as ended', async () => {
    engine.start(started(2, { crystalkvId: 'short' }));
    await engine.step(3, [row(2, 40)]);
    assert.equal((await get('short', 0)).request?.computedTokens, 40);
    engine.send({ $case: 'finished', value: { handle: 2, reason: 1, generatedTokens: 8, probeTokens: 0 } });
    await engine.step(4, []);
    const { request } = await get('short', 0);
    assert.deepEqual([request?.computedTokens, request?.ended], [40, true]);
  });

  test('a watch tells the last state of a request that ends in between, once', async () => {
    const call = engine.client.watch({ intervalMs: 50, crystalkvId: 'brief' });
    call.on('error', () => {});
    const seen: { tokens: number; ended: boolean }[] = [];
    let messages = 0;
    for await (const state of call as AsyncIterable<WatchResponse>) {
      messages += 1;
      for (const { computedTokens, ended } of state.requests) seen.push({ tokens: computedTokens, ended });
      if (messages === 1) {
        engine.start(started(9, { crystalkvId: 'brief' }));
        await engine.step(20, [row(9, 40)]);
        engine.send({ $case: 'finished', value: { handle: 9, reason: 1, generatedTokens: 8, probeTokens: 0 } });
        await engine.step(21, []);
      }
      if (messages === 4) break;
    }
    assert.deepEqual(
      seen.filter(({ ended }) => ended),
      [{ tokens: 40, ended: true }],
    );
    assert.equal(seen.at(-1)?.ended, true);
  });

  test('the health service says that it serves', async () => {
    const { grpc } = loadPackageDefinition(loadSync(healthProto, { enums: String })) as never as {
      grpc: { health: { v1: { Health: new (...args: unknown[]) => HealthClient } } };
    };
    const client = new grpc.health.v1.Health(server.address, credentials.createInsecure());
    for (const service of ['', 'crystalkv.v1.KvPolicy']) {
      const answer = await new Promise<{ status: string }>((resolve, reject) =>
        client.check({ service }, (error, response) => (error === null ? resolve(response) : reject(error))),
      );
      assert.equal(answer.status, 'SERVING');
    }
    client.close();
  });

  test('reflection lists the service', async () => {
    const { names, close } = await reflect(server.address);
    close();
    assert.ok(names.includes('crystalkv.v1.KvPolicy'), `${names}`);
  });

  test('metrics have a listener of their own, with help texts and the prefix', async () => {
    const response = await fetch(`${server.metricsUrl}/metrics`);
    const text = await response.text();
    assert.match(response.headers.get('content-type') ?? '', /text\/plain/);
    const names = [...text.matchAll(/^# HELP (\S+) .+$/gm)].map(([, name]) => name!);
    assert.ok(names.length > 20);
    assert.deepEqual(
      names.filter((name) => !name.startsWith('crystalkv_')),
      [],
    );
    assert.equal((await fetch(`${server.metricsUrl}/health`)).status, 200);
  });
});

test('closing ends streams and watches, and leaves nothing listening', async () => {
  const server = await startService({}, profiles);
  const engine = new ScriptedEngine(server.address);
  await engine.greet();
  const watch = engine.client.watch({ intervalMs: 10_000, crystalkvId: '' });
  const ended = new Promise<void>((resolve) => watch.on('end', resolve).on('error', () => resolve()));
  watch.resume();
  await new Promise((resolve) => watch.once('data', resolve));
  const closing = server.close();
  assert.equal((await engine.failure()).code, status.UNAVAILABLE);
  await ended;
  engine.close();
  await closing;
  await assert.rejects(fetch(`${server.metricsUrl}/health`));
});

test('closing does not wait for a peer that keeps its half of the connection open', async () => {
  const server = await startService({}, profiles);
  const socket = connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {});
  // The preface of HTTP/2 and empty settings: a session begins, and nothing more is ever said or read.
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
  await once(socket, 'data');
  socket.pause();
  await server.close();
  await assert.rejects(fetch(`${server.metricsUrl}/health`));
  socket.destroy();
});

interface HealthClient {
  check(request: object, callback: (error: Error | null, response: { status: string }) => void): void;
  close(): void;
}

interface ReflectionCall {
  on(event: 'data', listener: (answer: { listServicesResponse: { service: { name: string }[] } }) => void): this;
  on(event: 'error', listener: (error: Error) => void): this;
  write(request: object): void;
  end(): void;
}

/** The names that the server's reflection service lists, asked for with a client made from its public definition. */
async function reflect(address: string): Promise<{ names: string[]; close(): void }> {
  const path = fileURLToPath(new URL(PROTO, import.meta.url));
  const { grpc } = loadPackageDefinition(loadSync(path)) as never as {
    grpc: {
      reflection: {
        v1: {
          ServerReflection: new (...args: unknown[]) => { ServerReflectionInfo(): ReflectionCall; close(): void };
        };
      };
    };
  };
  const client = new grpc.reflection.v1.ServerReflection(address, credentials.createInsecure());
  const call = client.ServerReflectionInfo();
  const names = await new Promise<string[]>((resolve, reject) => {
    call.on('data', ({ listServicesResponse }) => resolve(listServicesResponse.service.map(({ name }) => name)));
    call.on('error', reject);
    call.write({ listServices: '' });
  });
  call.end();
  return { names, close: () => client.close() };
}

test('a segment has what answer probes read of its blocks, shared out by tokens', () => {
  const probe = { count: 1, seen: 5, masses: Float64Array.of(0, 0, 0.25, 0.5, 1, 9) };
  const facts = { segmentStarts: [32, 56, 72, 80], tokens: 120, probe, table: { blockSize: 16 } };
  // the second begins in the middle of block 3; the last begins where no probe has looked yet
  assert.deepEqual(segmentMasses(facts), [0.25 + 0.25, 0.25 + 0.5, 0.5, 0]);
});
