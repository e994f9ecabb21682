import { GatewayError } from '../errors.ts';
import type { KeyEntry } from '../keys/entry.ts';
import type { RequestRecord } from '../observe/record.ts';
import { HeldBody } from '../request/held-body.ts';
import type { UpstreamRequest } from '../request/upstream-request.ts';
import { BYTES_PER_TOKEN } from '../usage/text-estimate.ts';
import type { LimitsConfig } from './config.ts';
import { limitHeaders, retryHeaders } from './headers.ts';
import type { Counts, LimitName, Limits } from './limiter.ts';
import type { ModelLengths } from './model-lengths.ts';
import type { ResilientLimiter } from './resilient.ts';

/** Lets a request with a key pass when its limits have room. */
export interface KeyLimits {
  /**
   * Throws `rate_limited`, `quota_used` or `limits_unavailable`. What it gives is to be called once, when the response has
   * closed and the tokens on the record are all.
   */
  enter(record: RequestRecord, sent: UpstreamRequest): Promise<() => void>;
  /** Before the body of a request has come: throws the same where no request of its key would pass now. */
  look(record: RequestRecord): Promise<void>;
  /** Resolves when all that ended has been counted, or could not be. */
  close(): Promise<void>;
}

export interface KeyLimitsDeps {
  limiter: ResilientLimiter;
  config: LimitsConfig;
  lengths: ModelLengths;
  onLimited: (key: string, limit: LimitName) => void;
  /** How much of a limit a key has used, from 0; above 1 when tokens passed it. */
  onUsed: (key: string, limit: LimitName, share: number) => void;
}

const NOTHING = () => {};
/** Reserved for output without a limit of a model whose length nobody tells. */
const UNKNOWN_OUTPUT = 1_024;

export function createKeyLimits({ limiter, config, lengths, onLimited, onUsed }: KeyLimitsDeps): KeyLimits {
  const settling = new Set<Promise<void>>();
  return {
    async enter(record, sent) {
      const { key } = record;
      const limits = key === undefined || !sent.costs ? undefined : limitsOf(key);
      if (key === undefined || limits === undefined) return NOTHING;
      const lease = {
        key: key.id,
        id: `${record.requestId}.${nextLease()}`,
        reserve: await reserveOf(sent, config, lengths),
      };
      const admission = await limiter.admit(lease, limits);
      if (admission.kind === 'unavailable') throw unavailable();
      record.answerHeaders.push(...limitHeaders(limits, admission.counts));
      for (const [limit, share] of usedShares(limits, admission.counts)) onUsed(key.name, limit, share);
      if (admission.kind === 'refused') {
        onLimited(key.name, admission.limit);
        throw refusal(key, admission.limit, admission.retryMs);
      }
      return () => {
        const settled = limiter.settle(lease, record.tokens.input + record.tokens.output);
        settling.add(settled);
        void settled.then(() => settling.delete(settled));
      };
    },
    async look(record) {
      const { key } = record;
      const limits = key === undefined ? undefined : limitsOf(key);
      if (key === undefined || limits === undefined) return;
      const admission = await limiter.look(key.id, limits);
      if (admission.kind === 'unavailable') throw unavailable();
      if (admission.kind === 'admitted') return;
      record.answerHeaders.push(...limitHeaders(limits, admission.counts));
      onLimited(key.name, admission.limit);
      throw refusal(key, admission.limit, admission.retryMs);
    },
    async close() {
      await Promise.all(settling);
      limiter.close();
    },
  };
}

/** What is used and reserved of each limit that the key has. */
function usedShares(limits: Limits, counts: Counts): [limit: LimitName, share: number][] {
  const { requests, running, reserved, tokens, tokensToday } = counts;
  const used: [LimitName, number, number | undefined][] = [
    ['requests_per_minute', requests, limits.requestsPerMinute],
    ['concurrent_requests', running, limits.concurrentRequests],
    ['tokens_per_minute', tokens + reserved, limits.tokensPerMinute],
    ['tokens_per_day', tokensToday + reserved, limits.tokensPerDay],
  ];
  return used.flatMap(([name, count, limit]) => (limit === undefined ? [] : [[name, limit > 0 ? count / limit : 1]]));
}

/** Undefined: the key has no limit, so there is nothing to ask. */
function limitsOf(key: KeyEntry): Limits | undefined {
  const limits: Limits = {
    requestsPerMinute: key.requests_per_minute,
    tokensPerMinute: key.tokens_per_minute,
    concurrentRequests: key.concurrent_requests,
    tokensPerDay: key.tokens_per_day,
  };
  return Object.values(limits).every((limit) => limit === undefined) ? undefined : limits;
}

/** What images, recordings and embeddings come in. */
const MEDIA = ['base64', '"input_audio"', '_embeds"'].map((needle) => Buffer.from(needle));

/** So much text before the first of them is none of what people send. */
const MAX_TEXT_BYTES = 4 * 1024 * 1024;

/** Tokens of a prompt, by the bytes of its request; images would count for far too much without a bound. */
export function promptEstimate({ body, output }: UpstreamRequest, config: LimitsConfig): number {
  if (!(body instanceof HeldBody)) return 0;
  const tokens = Math.max(Math.ceil(body.length / BYTES_PER_TOKEN), output?.promptIds ?? 0);
  if (tokens <= config.reserve_prompt_max) return tokens;
  const beginning = body.bytes?.subarray(0, MAX_TEXT_BYTES);
  return MEDIA.some((needle) => beginning?.includes(needle)) ? config.reserve_prompt_max : tokens;
}

/**
 * Tokens that a request may take: its prompt by its bytes, and all the output that it asks for. Without a limit a server
 * goes on until its model's length is full.
 */
async function reserveOf(sent: UpstreamRequest, config: LimitsConfig, lengths: ModelLengths): Promise<number> {
  const { output } = sent;
  const prompt = promptEstimate(sent, config);
  if (output === undefined) return prompt;
  const unlimited = async () => config.reserve_output ?? (await lengths.of(sent.model)) ?? UNKNOWN_OUTPUT;
  return prompt + (output.most ?? (await unlimited())) * output.choices;
}

const RESERVED = 'including those reserved by running requests';
const MESSAGES: Readonly<Record<LimitName, (limit: number | undefined) => string>> = {
  concurrent_requests: (limit) => (limit === 1 ? '1 concurrent request' : `${limit} concurrent requests`),
  requests_per_minute: (limit) => (limit === 1 ? '1 request per minute' : `${limit} requests per minute`),
  tokens_per_minute: (limit) => `${limit} tokens per minute, ${RESERVED}`,
  tokens_per_day: (limit) => `${limit} tokens per day (UTC), ${RESERVED}`,
};

function unavailable(): GatewayError {
  return new GatewayError('limits_unavailable', { headers: { 'retry-after': '1' } });
}

function refusal(key: KeyEntry, limit: LimitName, retryMs: number): GatewayError {
  return new GatewayError(limit === 'tokens_per_day' ? 'quota_used' : 'rate_limited', {
    message: `this API key is limited to ${MESSAGES[limit](key[limit])}`,
    headers: retryHeaders(retryMs),
  });
}

/** Request ids are the client's to choose, and may come twice. */
const process36 = Math.floor(Math.random() * 36 ** 8).toString(36);
let leases = 0;
function nextLease(): string {
  leases += 1;
  return `${process36}.${leases.toString(36)}`;
}
