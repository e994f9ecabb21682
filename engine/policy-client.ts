import { readFileSync } from 'node:fs';
import { type ClientDuplexStream, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Logger } from '../common/logger.ts';
import { type BackoffBounds, backoffMs, jittered } from '../common/time.ts';
import type { AttachRequest, AttachResponse, Configure, Hello, Plan } from '../proto/gen/crystalkv/v1/policy.ts';
import { KvPolicyClient } from '../proto/gen/crystalkv/v1/policy.ts';
import { MAX_MESSAGES, Outbox } from './outbox.ts';
import type { Report } from './types.ts';

export interface PolicyClientOptions {
  address: string;
  token: string | undefined;
  caFile: string | undefined;
  hello: Hello;
  logger: Logger;
}

/** What the engine does with the service's messages. */
export interface PolicyListener {
  /** The stream is up: send a snapshot, then report everything. Called again when the configuration changes. */
  onConfigure(configure: Configure, first: boolean): void;
  onPlan(plan: Plan): void;
  /** The stream is lost: stock behaviour until `onConfigure` is called again. */
  onDetached(): void;
}

type Stream = ClientDuplexStream<AttachRequest, AttachResponse>;

const BACKOFF: BackoffBounds = { firstMs: 100, maxMs: 5000 };
/** A service that speaks another version of the protocol will not speak ours soon. */
const INCOMPATIBLE_BACKOFF_MS = 30_000;

/**
 * The engine's stream to the policy service. It reconnects by itself, without end; nothing waits for it. While the
 * service is slower than the engine, the oldest steps are dropped and counted.
 */
export class PolicyClient {
  readonly #options: PolicyClientOptions;
  readonly #listener: PolicyListener;
  readonly #client: KvPolicyClient;
  readonly #outbox = new Outbox();
  #stream: Stream | undefined;
  #attached = false;
  /** Streams that were lost since the last Welcome. */
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PolicyClientOptions, listener: PolicyListener) {
    this.#options = options;
    this.#listener = listener;
    const { caFile } = options;
    const channel = caFile === undefined ? credentials.createInsecure() : credentials.createSsl(readFileSync(caFile));
    this.#client = new KvPolicyClient(options.address, channel, {
      'grpc.keepalive_time_ms': 3000,
      'grpc.keepalive_timeout_ms': 2000,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.initial_reconnect_backoff_ms': BACKOFF.firstMs,
      'grpc.max_reconnect_backoff_ms': BACKOFF.maxMs,
    });
    this.#connect();
  }

  get attached(): boolean {
    return this.#attached;
  }

  get droppedSteps(): number {
    return this.#outbox.droppedSteps;
  }

  /** Sends a message as soon as the stream has room for it; does nothing without a stream. */
  send(message: Report): void {
    const stream = this.#stream;
    if (stream === undefined || !this.#attached) return;
    if (this.#outbox.put(message)) this.#flush(stream);
    else this.#lose(stream, `${MAX_MESSAGES} messages are waiting for the policy service`);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#client.close();
  }

  #flush(stream: Stream): void {
    if (stream !== this.#stream) return;
    while (!stream.writableNeedDrain) {
      const message = this.#outbox.take();
      if (message === undefined) return;
      stream.write({ message });
    }
  }

  #connect(): void {
    const metadata = new Metadata();
    if (this.#options.token !== undefined) metadata.set('authorization', `Bearer ${this.#options.token}`);
    const stream = this.#client.attach(metadata);
    this.#stream = stream;
    this.#outbox.clear();
    stream.on('data', (response: AttachResponse) => this.#receive(stream, response));
    stream.on('drain', () => this.#flush(stream));
    stream.on('error', (error: ServiceError) => this.#lose(stream, error.details, error.code));
    stream.on('end', () => this.#lose(stream, 'the policy service ended the stream'));
    stream.write({ message: { $case: 'hello', value: this.#options.hello } });
  }

  #receive(stream: Stream, response: AttachResponse): void {
    if (stream !== this.#stream || response.message === undefined) return;
    switch (response.message.$case) {
      case 'welcome':
        this.#failures = 0;
        break;
      case 'configure': {
        const first = !this.#attached;
        this.#attached = true;
        if (first) this.#options.logger.info({ address: this.#options.address }, 'attached to the policy service');
        this.#checkHeadGroups(response.message.value);
        this.#listener.onConfigure(response.message.value, first);
        break;
      }
      case 'plan':
        this.#listener.onPlan(response.message.value);
    }
  }

  #checkHeadGroups({ headGroups }: Configure): void {
    const last = Math.max(-1, ...headGroups);
    const { hello, logger } = this.#options;
    if (last < hello.headGroups) return;
    logger.error(
      { headGroup: last, headGroups: hello.headGroups },
      'the policy service asks for a head group that does not exist: nothing is measured',
    );
  }

  #lose(stream: Stream, reason: string, code?: status): void {
    if (stream !== this.#stream || this.#closed) return;
    this.#stream = undefined;
    stream.cancel();
    const wasAttached = this.#attached;
    this.#attached = false;
    const incompatible = code === status.FAILED_PRECONDITION;
    this.#failures += 1;
    const waitMs = incompatible ? INCOMPATIBLE_BACKOFF_MS : jittered(backoffMs(this.#failures, BACKOFF));
    if (wasAttached) this.#listener.onDetached();
    const level = wasAttached || incompatible ? 'warn' : 'debug';
    this.#options.logger[level]({ address: this.#options.address, reason }, 'no policy service: nothing is evicted');
    this.#timer = setTimeout(() => this.#connect(), waitMs);
  }
}
