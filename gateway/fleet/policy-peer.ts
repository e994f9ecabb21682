import { type ClientReadableStream, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import {
  type EngineState,
  KvPolicyClient,
  type ListPoliciesResponse,
  type ListProfilesResponse,
  type RequestState,
  type WatchResponse,
} from '../../proto/gen/crystalkv/v1/policy.ts';
import { readPolicyCa } from './policy-ca.ts';

export interface PolicyPeerOptions {
  /** host:port. */
  address: string;
  /** The service's shared token. */
  token?: string | undefined;
  /** PEM file of the authority that signed its certificate; turns TLS on. */
  caFile?: string | undefined;
}

/** A message holds the keep values of every request. */
const MAX_BYTES = 64 << 20;
const CALL_MS = 2_000;

/**
 * The policy service beside a backend, asked by the gateway for what it knows. It connects by itself and again after a
 * loss. Every call rejects within 2 s; no request of a client's may depend on it.
 */
export class PolicyPeer {
  readonly address: string;
  readonly #client: KvPolicyClient;
  readonly #metadata = new Metadata();

  constructor({ address, token, caFile }: PolicyPeerOptions) {
    this.address = address;
    const channel = caFile === undefined ? credentials.createInsecure() : credentials.createSsl(readPolicyCa(caFile));
    this.#client = new KvPolicyClient(address, channel, { 'grpc.max_receive_message_length': MAX_BYTES });
    if (token !== undefined) this.#metadata.set('authorization', `Bearer ${token}`);
  }

  /** The engines that are attached, with their pools. */
  engines(): Promise<EngineState[]> {
    return new Promise((resolve, reject) => {
      this.#client.getEngines({}, this.#metadata, deadline(), (error, response) =>
        error === null ? resolve(response.engines) : reject(error),
      );
    });
  }

  /** One choice of a request by the id that the gateway gave it; undefined: it is unknown or ended a while ago. */
  request(crystalkvId: string, choiceIndex = 0): Promise<RequestState | undefined> {
    return new Promise((resolve, reject) => {
      this.#client.getRequest({ crystalkvId, choiceIndex }, this.#metadata, deadline(), (error, response) => {
        if (error === null) resolve(response.request);
        else if (error.code === status.NOT_FOUND) resolve(undefined);
        else reject(error);
      });
    });
  }

  policies(): Promise<ListPoliciesResponse['policies']> {
    return new Promise((resolve, reject) => {
      this.#client.listPolicies({}, this.#metadata, deadline(), (error: ServiceError | null, response) =>
        error === null ? resolve(response.policies) : reject(error),
      );
    });
  }

  profiles(): Promise<ListProfilesResponse['profiles']> {
    return new Promise((resolve, reject) => {
      this.#client.listProfiles({}, this.#metadata, deadline(), (error: ServiceError | null, response) =>
        error === null ? resolve(response.profiles) : reject(error),
      );
    });
  }

  /** Pool and request states as they change, with what is in memory of each token; `cancel` it when nobody reads it. */
  watch(intervalMs: number, crystalkvId = ''): ClientReadableStream<WatchResponse> {
    return this.#client.watch({ intervalMs, crystalkvId, held: true }, this.#metadata);
  }

  close(): void {
    this.#client.close();
  }
}

function deadline(): { deadline: number } {
  return { deadline: Date.now() + CALL_MS };
}
