import { afterEach, type TestContext } from 'node:test';
import { type ClientDuplexStream, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { createLogger } from '../../common/logger.ts';
import { type Config, policyServiceSchema } from '../../policy-service/config.ts';
import { profilesSchema } from '../../policy-service/request/profiles.ts';
import { createServer, type PolicyServer } from '../../policy-service/rpc/server.ts';
import {
  type AttachRequest,
  type AttachResponse,
  Capability,
  type Configure,
  type Hello,
  KvPolicyClient,
  Phase,
  type Plan,
  type RequestAck,
  type RequestStep,
  type Started,
  type Step,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { readMetrics, total } from '../../scripts/metrics/text.ts';

/** Only a failing test waits this long, in milliseconds: a busy machine takes a while for a turn. */
const DEADLINE_MS = 20_000;

export const GROUPS = 2;
export const BLOCK_SIZE = 16;

/** Both sections with their defaults, on ports of their own; every step is measured. */
export function testConfig(service: object = {}, profiles: object = {}): Config {
  const everyStep = { measure_every: 1, measure_every_idle: 1 };
  return {
    service: policyServiceSchema.parse({ port: 0, metrics_port: 0, log_level: 'silent', ...everyStep, ...service }),
    profiles: profilesSchema.parse(profiles),
  };
}

export function startService(service: object = {}, profiles: object = {}): Promise<PolicyServer> {
  return createServer({ config: testConfig(service, profiles), logger: createLogger('test', 'silent') });
}

/** A service that ends with the test. */
export async function serviceFor(
  test: TestContext,
  service: object = {},
  profiles: object = {},
): Promise<PolicyServer> {
  const server = await startService(service, profiles);
  test.after(() => server.close());
  return server;
}

/** An engine that leaves with the test. */
export function engineFor(test: TestContext, address: string, token?: string): ScriptedEngine {
  const engine = new ScriptedEngine(address, token);
  test.after(() => engine.close());
  return engine;
}

export function hello(changes: Partial<Hello> = {}): Hello {
  return {
    protocolMin: 1,
    protocolMax: 1,
    engineId: 'engine-a',
    instanceId: 'instance-1',
    model: 'scripted',
    blockSize: BLOCK_SIZE,
    bytesPerBlock: 1000n,
    poolBlocks: 100,
    layers: 1,
    headGroups: GROUPS,
    endOfThinking: [{ tokenIds: [7] }],
    probeSuffixTokens: 0,
    segmentMarkerTokenIds: [],
    capabilities: [Capability.CAPABILITY_EVICT, Capability.CAPABILITY_PROBE],
    sinkTokens: 0,
    recentTokens: 32,
    lockstep: true,
    statistics: [],
    ...changes,
  };
}

export function started(handle: number, changes: Partial<Started> = {}): Started {
  return {
    handle,
    crystalkvId: `request-${handle}`,
    choiceIndex: 0,
    promptTokens: 32,
    options: undefined,
    epoch: 0,
    evicted: [],
    computedTokens: 0,
    ...changes,
  };
}

/** Log codes for `columns` resident blocks, the same in every group: `read` columns share the attention. */
export function masses(columns: number, read: readonly number[]): Buffer {
  const codes = Buffer.alloc(GROUPS * columns, 31);
  const code = Math.floor(2 * Math.log2(Math.max(1, read.length)));
  for (let group = 0; group < GROUPS; group += 1) for (const column of read) codes[group * columns + column] = code;
  return codes;
}

export function row(handle: number, computedTokens: number, changes: Partial<RequestStep> = {}): RequestStep {
  return {
    handle,
    epoch: 0,
    computedTokens,
    phase: Phase.PHASE_THINKING,
    segmentStarts: [],
    masses: Buffer.alloc(0),
    ...changes,
  };
}

/** An engine that says what a test tells it to, over a real connection. */
export class ScriptedEngine {
  readonly client: KvPolicyClient;
  readonly #stream: ClientDuplexStream<AttachRequest, AttachResponse>;
  readonly #inbox: NonNullable<AttachResponse['message']>[] = [];
  #failure: ServiceError | undefined;
  #ended = false;
  #wake: () => void = () => {};

  constructor(address: string, token?: string) {
    this.client = new KvPolicyClient(address, credentials.createInsecure());
    const metadata = new Metadata();
    if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
    this.#stream = this.client.attach(metadata);
    this.#stream.on('data', ({ message }: AttachResponse) => {
      if (message !== undefined) this.#inbox.push(message);
      this.#wake();
    });
    this.#stream.on('error', (error: ServiceError) => {
      this.#failure = error;
      this.#wake();
    });
    this.#stream.on('end', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  send(message: NonNullable<AttachRequest['message']>): void {
    this.#stream.write({ message });
  }

  /** Says hello with no requests and waits until the service has answered. */
  async greet(changes: Partial<Hello> = {}, requests: Started[] = []): Promise<Configure> {
    this.send({ $case: 'hello', value: hello(changes) });
    await this.receive('welcome');
    const configure = await this.receive('configure');
    this.send({ $case: 'snapshot', value: { requests } });
    return configure;
  }

  start(value: Started): void {
    this.send({ $case: 'started', value });
  }

  /** One step, and the plan for it: every step of a lockstep engine has one. */
  async step(step: number, requests: RequestStep[], pool: Partial<Step['pool']> = {}): Promise<Plan> {
    this.tell(step, requests, pool);
    let message = await this.next();
    // Somebody who looks at the service may change what it wants to know.
    while (message.$case === 'configure') message = await this.next();
    if (message.$case !== 'plan') throw new Error(`expected plan, got ${message.$case}`);
    const plan = message.value;
    if (plan.basedOnStep !== BigInt(step)) throw new Error(`expected the plan of ${step}, got ${plan.basedOnStep}`);
    return plan;
  }

  tell(step: number, requests: RequestStep[], pool: Partial<Step['pool']> = {}, more = false): void {
    const state = { freeBlocks: 50, totalBlocks: 100, waiting: 0, running: requests.length, preemptions: 0n, ...pool };
    this.send({ $case: 'step', value: { step: BigInt(step), pool: state, requests, more } });
  }

  ack(plan: Plan, requests: Partial<RequestAck>[]): void {
    this.send({
      $case: 'ack',
      value: {
        planSequence: plan.sequence,
        appliedAtStep: plan.basedOnStep + 1n,
        requests: requests.map((one) => ({
          handle: 1,
          epoch: 0,
          evicted: [],
          rejected: [],
          probe: 0,
          merged: [],
          shadowEvicted: [],
          ...one,
        })),
      },
    });
  }

  /** Acknowledges everything that a plan asks for. */
  obey(plan: Plan): void {
    this.ack(
      plan,
      plan.requests.map(({ handle, epoch, evict, merges, probe, shadow }) => ({
        handle,
        epoch,
        shadowEvicted: [...(shadow?.evict ?? []), ...(shadow?.merges ?? []).flatMap(({ from }) => from)],
        evicted: [...evict, ...merges.flatMap(({ from }) => from)].sort((a, b) => a - b),
        probe: probe ? 1 : 0,
        merged: merges,
      })),
    );
  }

  /** The next message; rejects when the stream ended or nothing came in time. */
  async next(): Promise<NonNullable<AttachResponse['message']>> {
    await this.#until(() => this.#inbox.length > 0 || this.#failure !== undefined || this.#ended);
    const message = this.#inbox.shift();
    if (message === undefined) throw this.#failure ?? new Error('the service ended the stream');
    return message;
  }

  /** The next message, which has to be of the kind; rejects when the stream ended or nothing came in time. */
  async receive<K extends NonNullable<AttachResponse['message']>['$case']>(
    kind: K,
  ): Promise<Extract<NonNullable<AttachResponse['message']>, { $case: K }>['value']> {
    const message = await this.next();
    if (message.$case !== kind) throw new Error(`expected ${kind}, got ${message.$case}`);
    return message.value as never;
  }

  /** The error that ended the stream. */
  async failure(): Promise<ServiceError> {
    await this.#until(() => this.#failure !== undefined);
    return this.#failure!;
  }

  close(): void {
    this.#stream.on('error', () => {});
    this.#stream.cancel();
    this.client.close();
  }

  #until(done: () => boolean): Promise<void> {
    if (done()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the service said nothing in time')), DEADLINE_MS);
      this.#wake = () => {
        if (!done()) return;
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
    });
  }
}

/** The value of a metric, summed over its label sets that contain `labels`. */
export async function metric(server: PolicyServer, name: string, labels: Record<string, string> = {}): Promise<number> {
  return total(await readMetrics(`${server.metricsUrl}/metrics`), name, labels);
}

/** Makes engines for the tests of a suite; each is closed after the test that made it. */
export function scriptedEngines(server: () => PolicyServer): () => ScriptedEngine {
  const made: ScriptedEngine[] = [];
  afterEach(() => {
    for (const engine of made.splice(0)) engine.close();
  });
  return () => {
    const engine = new ScriptedEngine(server().address);
    made.push(engine);
    return engine;
  };
}
