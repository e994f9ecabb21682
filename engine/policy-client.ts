import { readFileSync } from 'node:fs';
import { type ClientDuplexStream, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Logger } from '../common/logger.ts';
import type { AttachRequest, AttachResponse, Configure, Hello, Plan } from '../proto/gen/crystalkv/v1/policy.ts';
import { KvPolicyClient } from '../proto/gen/crystalkv/v1/policy.ts';

export interface PolicyClientOptions {
  address: string;
  token: string | undefined;
  caFile: string | undefined;
  hello: Hello;
  logger: Logger;
}

/** What the engine does with what the service says. */
export interface PolicyListener {
  /** The stream is up: send a snapshot, then report everything. Called again when the configuration changes. */
  onConfigure(configure: Configure, first: boolean): void;
  onPlan(plan: Plan): void;
  /** The stream is gone: stock behaviour until `onConfigure` comes again. */
  onDetached(): void;
}

const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 5000;
/** A service that speaks another protocol will not learn ours soon. */
const INCOMPATIBLE_BACKOFF_MS = 30_000;
/** Messages that wait for the wire before steps are dropped; a lockstep engine sends no more than one at a time. */
const MOST_WAITING = 64;
/** Undelivered messages after which the stream is given up; a new one starts with a snapshot. */
const MOST_QUEUED = 4096;

/**
 * The engine's stream to the policy service. It connects again by itself, for ever; nothing waits for it. While the
 * service is slower than the engine, steps are dropped and counted, all other messages are kept in order.
 */
export class PolicyClient {
  readonly #options: PolicyClientOptions;
  readonly #listener: PolicyListener;
  readonly #client: KvPolicyClient;
  #stream: ClientDuplexStream<AttachRequest, AttachResponse> | undefined;
  #attached = false;
  #queued = 0;
  #backoffMs = FIRST_BACKOFF_MS;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  droppedSteps = 0;

  constructor(options: PolicyClientOptions, listener: PolicyListener) {
    this.#options = options;
    this.#listener = listener;
    const { caFile } = options;
    const channel = caFile === undefined ? credentials.createInsecure() : credentials.createSsl(readFileSync(caFile));
    this.#client = new KvPolicyClient(options.address, channel, {
      'grpc.keepalive_time_ms': 3000,
      'grpc.keepalive_timeout_ms': 2000,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.initial_reconnect_backoff_ms': FIRST_BACKOFF_MS,
      'grpc.max_reconnect_backoff_ms': LONGEST_BACKOFF_MS,
    });
    this.#connect();
  }

  get attached(): boolean {
    return this.#attached;
  }

  /** Sends a message, unless there is no stream, or it is a step that the stream has no room for. */
  send(message: NonNullable<AttachRequest['message']>): void {
    const stream = this.#stream;
    if (stream === undefined || !this.#attached) return;
    if (message.$case === 'step' && this.#queued >= MOST_WAITING && !this.#options.hello.lockstep) {
      this.droppedSteps += 1;
      return;
    }
    if (this.#queued >= MOST_QUEUED) {
      this.#lose(stream, `${this.#queued} messages were not taken`);
      return;
    }
    this.#queued += 1;
    stream.write({ message }, () => {
      if (stream === this.#stream) this.#queued -= 1;
    });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#client.close();
  }

  #connect(): void {
    const metadata = new Metadata();
    if (this.#options.token !== undefined) metadata.set('authorization', `Bearer ${this.#options.token}`);
    const stream = this.#client.attach(metadata);
    this.#stream = stream;
    this.#queued = 0;
    stream.on('data', (response: AttachResponse) => this.#receive(stream, response));
    stream.on('error', (error: ServiceError) => this.#lose(stream, error.details, error.code));
    stream.on('end', () => this.#lose(stream, 'the service ended the stream'));
    stream.write({ message: { $case: 'hello', value: this.#options.hello } });
  }

  #receive(stream: ClientDuplexStream<AttachRequest, AttachResponse>, response: AttachResponse): void {
    if (stream !== this.#stream || response.message === undefined) return;
    switch (response.message.$case) {
      case 'welcome':
        this.#backoffMs = FIRST_BACKOFF_MS;
        break;
      case 'configure': {
        const first = !this.#attached;
        this.#attached = true;
        if (first) this.#options.logger.info({ address: this.#options.address }, 'attached to the policy service');
        this.#listener.onConfigure(response.message.value, first);
        break;
      }
      case 'plan':
        this.#listener.onPlan(response.message.value);
    }
  }

  #lose(stream: ClientDuplexStream<AttachRequest, AttachResponse>, reason: string, code?: status): void {
    if (stream !== this.#stream || this.#closed) return;
    this.#stream = undefined;
    stream.cancel();
    const wasAttached = this.#attached;
    this.#attached = false;
    const incompatible = code === status.FAILED_PRECONDITION;
    const waitMs = incompatible ? INCOMPATIBLE_BACKOFF_MS : this.#backoffMs * (0.5 + Math.random() / 2);
    this.#backoffMs = Math.min(LONGEST_BACKOFF_MS, this.#backoffMs * 2);
    if (wasAttached) this.#listener.onDetached();
    const level = wasAttached || incompatible ? 'warn' : 'debug';
    this.#options.logger[level]({ address: this.#options.address, reason }, 'no policy service: nothing is evicted');
    this.#timer = setTimeout(() => this.#connect(), waitMs);
  }
}
