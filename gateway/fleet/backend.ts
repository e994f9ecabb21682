import { buildConnector, Pool } from 'undici';
import { fnv1a } from '../../common/fnv1a.ts';
import { type FlatHeaders, replaced } from '../headers.ts';
import { Breaker, type BreakerSettings, type Permit } from './breaker.ts';
import { Health } from './health.ts';
import type { ModelEntry } from './model-list.ts';
import { PolicyPeer, type PolicyPeerOptions } from './policy-peer.ts';
import { noteReuse } from './reused.ts';

/** A server as the configuration or DNS names it. */
export interface BackendSpec {
  /** The root of the server, without a trailing slash; also the metric label. */
  url: string;
  /** host:port of the policy service beside it. */
  policyAddress?: string | undefined;
  /** The models that it serves; undefined: it is asked. */
  models?: readonly string[] | undefined;
  /** Its own credential. Never logged, never shown. */
  apiKey?: string | undefined;
  /** It takes `vllm_xargs` in a request; undefined: it is found out. */
  xargs?: boolean | undefined;
  /** Its part of the requests, beside the weights of others (default 1); 0: what no other can take. */
  weight?: number | undefined;
  /** The name that its certificate is for, where the address is not that name. */
  servername?: string | undefined;
}

/** What the KV pool of a backend has left. */
export type Headroom =
  | { kind: 'unknown' }
  /** `freeShare` is 0 to 1; `waiting`: requests that its scheduler has not begun. `at` is in `performance.now()`. */
  | { kind: 'known'; freeShare: number; waiting: number; at: number };

/** Milliseconds. */
export interface ConnectionTimes {
  connect_ms: number;
  first_byte_ms: number;
  idle_ms: number;
}

/** A refusal counts half after so many milliseconds. */
const REFUSAL_HALF_LIFE_MS = 5_000;

export interface BackendDeps {
  times: ConnectionTimes;
  breaker: () => BreakerSettings;
  /** How policy services are spoken to. */
  policy: Omit<PolicyPeerOptions, 'address'>;
}

/** A server that requests are sent to. Its pool grows with the requests in flight: each has a connection of its own. */
export class Backend {
  readonly url: string;
  /** In front of every path: what the address has after the host. */
  readonly prefix: string;
  readonly pool: Pool;
  /** Of its address; what consistent hashing is made of. */
  readonly hash: number;
  readonly breaker: Breaker;
  readonly health = new Health();
  /** The models that it said it serves; undefined: not known. Those of the spec go before. */
  learned: ReadonlySet<string> | undefined;
  #seenXargs: 'taken' | 'refused' | 'unknown' = 'unknown';
  /** What it said of its models when it was last asked for them. */
  listed: readonly ModelEntry[] | undefined;
  /** What its KV pool had left when it was last asked. */
  headroom: Headroom = { kind: 'unknown' };
  /** Requests sent and not ended. */
  outstanding = 0;
  /** When it was last its turn among equals, in requests for each unit of weight. */
  turn = 0;
  /** It asked for a pause (`Retry-After`): not before this time, in `performance.now()`, while another can be asked. */
  restsUntil = 0;
  #refusals = { count: 0, at: 0 };
  readonly #policy: Omit<PolicyPeerOptions, 'address'>;
  #spec: BackendSpec;
  #configured: ReadonlySet<string> | undefined;
  #peer: PolicyPeer | undefined;
  #leaving: (() => void) | undefined;

  constructor(spec: BackendSpec, deps: BackendDeps) {
    const { origin, pathname } = new URL(spec.url);
    this.url = spec.url;
    this.prefix = pathname === '/' ? '' : pathname;
    this.hash = fnv1a(spec.url);
    this.breaker = new Breaker(deps.breaker);
    this.#policy = deps.policy;
    this.#spec = spec;
    this.#configured = spec.models === undefined ? undefined : new Set(spec.models);
    this.pool = new Pool(origin, {
      // The version of the protocol in which a pause on one request does not hold up another.
      allowH2: false,
      pipelining: 1,
      headersTimeout: deps.times.first_byte_ms,
      bodyTimeout: deps.times.idle_ms,
      connect: noteReuse(
        buildConnector({
          allowH2: false,
          timeout: deps.times.connect_ms,
          ...(spec.servername !== undefined && { servername: spec.servername }),
        }),
      ),
    });
  }

  /** The models that it serves; undefined: not known. */
  get models(): ReadonlySet<string> | undefined {
    return this.#configured ?? this.learned;
  }

  /** Whether it takes `vllm_xargs`: servers other than vLLM may refuse members that they do not know. */
  get xargs(): 'taken' | 'refused' | 'unknown' {
    const { xargs } = this.#spec;
    if (xargs !== undefined) return xargs ? 'taken' : 'refused';
    return this.#seenXargs;
  }

  sawXargs(what: 'taken' | 'refused'): void {
    this.#seenXargs = what;
  }

  get weight(): number {
    return this.#spec.weight ?? 1;
  }

  /** Its models are to be asked for. */
  get asksModels(): boolean {
    return this.#configured === undefined;
  }

  /** The policy service beside it; it connects when it is first asked. */
  get peer(): PolicyPeer | undefined {
    const address = this.#spec.policyAddress;
    if (address !== undefined) this.#peer ??= new PolicyPeer({ ...this.#policy, address });
    return this.#peer;
  }

  /** Since when checks or answers have been bad, in `performance.now()`; undefined: it may be asked. */
  get illSince(): number | undefined {
    return this.health.unhealthySince ?? (this.breaker.allows ? undefined : this.breaker.openSince);
  }

  /** What the configuration says now of the same address. */
  update(spec: BackendSpec): void {
    if (spec.policyAddress !== this.#spec.policyAddress) {
      this.#peer?.close();
      this.#peer = undefined;
    }
    this.#spec = spec;
    this.#configured = spec.models === undefined ? undefined : new Set(spec.models);
  }

  /** The header that it asks for, name and value; none when it asks for none. */
  credential(): string[] {
    const { apiKey } = this.#spec;
    return apiKey === undefined ? [] : ['authorization', `Bearer ${apiKey}`];
  }

  /**
   * What the balancing rules compare: its outstanding requests, and those that it refused lately as if they ran still. A
   * server that refuses at once is never busy, and would get all that others should have.
   */
  get load(): number {
    return this.outstanding + Math.round(this.#lateRefusals());
  }

  /** It refused a request for a reason that may be its own: a credential, a path or a model that it does not know. */
  refused(): void {
    this.#refusals = { count: this.#lateRefusals() + 1, at: performance.now() };
  }

  #lateRefusals(): number {
    const { count, at } = this.#refusals;
    return count === 0 ? 0 : count * 2 ** ((at - performance.now()) / REFUSAL_HALF_LIFE_MS);
  }

  /**
   * Headers of a client's request, with the credential that this backend asks for in the place of the client's: clients of
   * OpenAI always send some. Where none is configured, the client's own stays.
   */
  withCredential(headers: FlatHeaders): FlatHeaders {
    const [name, value] = this.credential();
    return name === undefined ? headers : replaced(headers, { [name]: value });
  }

  begin(): Permit {
    this.outstanding++;
    return this.breaker.begin();
  }

  end(): void {
    this.outstanding--;
    if (this.outstanding === 0) this.#leaving?.();
  }

  /** Resolves when the last request has ended and its connections are closed. It must not be picked any more. */
  async leave(): Promise<void> {
    if (this.outstanding > 0) {
      await new Promise<void>((resolve) => {
        this.#leaving = resolve;
      });
    }
    await this.close();
  }

  /** Ends every connection, running requests included. */
  async close(): Promise<void> {
    this.#peer?.close();
    await this.pool.destroy();
  }
}
