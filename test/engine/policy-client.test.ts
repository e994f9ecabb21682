import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { pino } from 'pino';
import { PROTOCOL } from '../../common/protocol.ts';
import { MAX_STEPS } from '../../engine/outbox.ts';
import { PolicyClient } from '../../engine/policy-client.ts';
import type { Report } from '../../engine/types.ts';
import {
  type AttachRequest,
  type AttachResponse,
  type Configure,
  type Hello,
  KvPolicyService,
  Phase,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { until } from '../support/until.ts';

const HELLO: Hello = {
  protocolMin: PROTOCOL.min,
  protocolMax: PROTOCOL.max,
  engineId: 'e',
  instanceId: 'i',
  model: 'm',
  blockSize: 8,
  bytesPerBlock: 1n,
  poolBlocks: 8,
  layers: 1,
  headGroups: 1,
  endOfThinking: [],
  probeSuffixTokens: 0,
  segmentMarkerTokenIds: [],
  capabilities: [],
  sinkTokens: 0,
  recentTokens: 0,
  lockstep: false,
  statistics: [],
};

const CONFIGURE: Configure = { headGroups: [], measureEvery: 1, probeTokens: 0, statistics: undefined };

type Call = ServerDuplexStream<AttachRequest, AttachResponse>;

/** A policy service that greets and then does what `onAttach` does with the stream, and an engine's client of it. */
async function connected(t: TestContext, onAttach: (call: Call) => void, configure: Configure = CONFIGURE) {
  const server = new Server();
  t.after(() => server.forceShutdown());
  server.addService(KvPolicyService, {
    attach(call: Call) {
      call.write({ message: { $case: 'welcome', value: { protocol: PROTOCOL.max } } });
      call.write({ message: { $case: 'configure', value: configure } });
      onAttach(call);
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const errors: string[] = [];
  const logger = pino({ level: 'error' }, { write: (line) => errors.push(JSON.parse(line).msg) });
  let streams = 0;
  const client = new PolicyClient(
    { address: `127.0.0.1:${port}`, token: undefined, caFile: undefined, hello: HELLO, logger },
    {
      onConfigure: (_, first) => {
        if (first) streams += 1;
      },
      onPlan: () => {},
      onDetached: () => {},
    },
  );
  t.after(() => client.close());
  await until(() => client.attached, 'the engine is attached');
  return { client, errors, streams: () => streams };
}

/** A step of 20 kB. */
function longStep(number: number): Report {
  const masses = Buffer.alloc(20_000);
  const entry = { handle: 1, epoch: 0, computedTokens: number, phase: Phase.PHASE_THINKING, segmentStarts: [], masses };
  return { $case: 'step', value: { step: BigInt(number), pool: undefined, requests: [entry], more: false } };
}

test('a service that does not read gets the newest steps in the end, and all other messages, in order', async (t) => {
  const steps: number[] = [];
  const handles: number[] = [];
  let call: Call | undefined;
  const { client } = await connected(t, (attached) => {
    call = attached;
  });
  const sent = 600;
  for (let number = 1; number <= sent; number++) {
    client.send(longStep(number));
    if (number % 10 === 0) client.send({ $case: 'preempted', value: { handle: number, epoch: 1 } });
    if (number % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(client.droppedSteps > 0);
  call?.on('data', ({ message }: AttachRequest) => {
    if (message?.$case === 'step') steps.push(Number(message.value.step));
    else if (message?.$case === 'preempted') handles.push(message.value.handle);
  });
  await until(() => handles.length === sent / 10, 'all other messages arrive', { progress: () => steps.length });
  assert.equal(steps.length + client.droppedSteps, sent);
  assert.deepEqual(
    steps,
    steps.toSorted((a, b) => a - b),
  );
  assert.deepEqual(
    steps.slice(-MAX_STEPS),
    Array.from({ length: MAX_STEPS }, (_, i) => sent - MAX_STEPS + 1 + i),
  );
  assert.deepEqual(
    handles,
    Array.from({ length: sent / 10 }, (_, i) => (i + 1) * 10),
  );
});

test('a lost stream is made anew, and what waited for the old one is void', async (t) => {
  const received: string[][] = [];
  const calls: Call[] = [];
  const { client, streams } = await connected(t, (call) => {
    calls.push(call);
    const seen: string[] = [];
    received.push(seen);
    if (calls.length > 1) call.on('data', ({ message }: AttachRequest) => seen.push(message?.$case ?? ''));
  });
  for (let number = 1; number <= 200; number++) client.send(longStep(number));
  calls[0]?.end();
  await until(() => streams() === 2, 'a second stream');
  client.send({ $case: 'snapshot', value: { requests: [] } });
  await until(() => received[1]?.includes('snapshot'), 'the snapshot arrives');
  assert.deepEqual(received[1], ['hello', 'snapshot']);
});

test('a configuration with a head group that the model does not have is an error in the log', async (t) => {
  const { errors } = await connected(t, () => {}, { ...CONFIGURE, headGroups: [0, HELLO.headGroups] });
  assert.deepEqual(errors, ['the policy service asks for a head group that does not exist: nothing is measured']);
});

test('a configuration with the head groups that there are is none', async (t) => {
  const { errors } = await connected(t, () => {}, { ...CONFIGURE, headGroups: [0] });
  assert.deepEqual(errors, []);
});
