import { loadavg } from 'node:os';
import { createLogger } from '../common/logger.ts';
import { createRandom, type Random } from '../model/random.ts';
import { policyServiceSchema, settingsOf } from '../policy-service/config.ts';
import { POLICY_NAMES } from '../policy-service/policies/registry.ts';
import { profilesSchema } from '../policy-service/request/profiles.ts';
import { decodeAttachRequest } from '../policy-service/rpc/decode.ts';
import { createEngines } from '../policy-service/session/engines.ts';
import {
  AttachRequest,
  AttachResponse,
  Capability,
  Phase,
  type Plan,
  type RequestStep,
} from '../proto/gen/crystalkv/v1/policy.ts';
import { namesOf } from '../scripts/command-line.ts';
import { type BenchRun, runBench } from './program.ts';

/**
 * The policy service's hot path, without a network: one engine whose every step measures all requests, each of which
 * is over its budget by one block at every step. A step is the bytes of the engine's acknowledgement and step messages
 * in, decoding included, and the plan out, encoding included.
 */
const REQUESTS = 256;
/** Columns of each measurement: prompt and output blocks in the cache. */
const BLOCKS = 128;
const GROUPS = 32;
const BLOCK_SIZE = 16;
const PROMPT_BLOCKS = 8;
/** A request that has been running for long: most of its blocks are holes already. */
const EVICTED_BEFORE = 1024;
const FIRST_TOKENS = (EVICTED_BEFORE + BLOCKS) * BLOCK_SIZE;
const FIRST_STEP = 200;
const WARMUP = 200;
const STEPS = 1000;

await runBench({
  name: 'policy',
  about: `Measures the policy service's hot path, without a network: steps of ${REQUESTS} requests x ${BLOCKS} blocks x ${GROUPS} head groups.`,
  options: {
    policy: {
      type: 'string',
      default: 'crystal',
      value: 'NAME',
      help: `${POLICY_NAMES.join(', ')} (default: crystal)`,
    },
  },
  seed: { of: 'what attention is like', default: 1 },
  records: true,
  run: ({ policy }, run) => measure(namesOf('policy', [policy], POLICY_NAMES)[0] ?? policy, run),
});

async function measure(policy: string, { seed, report }: BenchRun): Promise<void> {
  const random = createRandom(seed);
  const codes = Array.from({ length: 64 }, () => realisticCodes(random));
  const settings = {
    current: settingsOf({
      service: policyServiceSchema.parse({}),
      profiles: profilesSchema.parse({
        default: {
          policy,
          controller: { type: 'fixed', budget_tokens: (BLOCKS - PROMPT_BLOCKS) * BLOCK_SIZE },
        },
      }),
    }),
  };
  let plan: Plan | undefined;
  let planBytes = 0;
  const engines = createEngines({ settings, logger: createLogger('bench', 'silent') });
  const stream = engines.open({
    send(message: AttachResponse) {
      if (message.message?.$case === 'plan') plan = message.message.value;
    },
    isBlocked: () => false,
    refuse({ details }) {
      throw new Error(details);
    },
  });

  const sendNow = (message: NonNullable<AttachRequest['message']>) => stream.receive({ message });
  sendNow({
    $case: 'hello',
    value: {
      protocolMin: 1,
      protocolMax: 1,
      engineId: 'bench',
      instanceId: 'bench',
      model: 'bench',
      blockSize: BLOCK_SIZE,
      bytesPerBlock: 65_536n,
      poolBlocks: REQUESTS * (BLOCKS + 8),
      layers: 16,
      headGroups: GROUPS,
      endOfThinking: [],
      probeSuffixTokens: 0,
      segmentMarkerTokenIds: [],
      capabilities: [Capability.CAPABILITY_EVICT],
      sinkTokens: 16,
      recentTokens: 64,
      lockstep: true,
      statistics: [],
    },
  });
  for (let handle = 1; handle <= REQUESTS; handle += 1) {
    sendNow({
      $case: 'started',
      value: {
        handle,
        crystalkvId: `request-${handle}`,
        choiceIndex: 0,
        promptTokens: PROMPT_BLOCKS * BLOCK_SIZE,
        options: undefined,
        epoch: 0,
        evicted: Array.from({ length: EVICTED_BEFORE }, (_, i) => PROMPT_BLOCKS + i),
        computedTokens: FIRST_TOKENS - BLOCK_SIZE,
      },
    });
  }

  /** Each step fills one block more and gives one away. */
  let tokens = FIRST_TOKENS;
  const templates = Array.from({ length: 8 }, (_, rotation) => createTemplate(rotation, codes));
  const durations = new Float64Array(STEPS);
  let allocated = 0;
  let evicted = 0;
  for (let step = 1; step <= WARMUP + STEPS; step += 1) {
    const ack = plan === undefined ? undefined : encodeAck(plan, FIRST_STEP + step);
    const message = templates[step % templates.length]!(FIRST_STEP + step, tokens);
    const before = process.memoryUsage();
    const begin = performance.now();
    if (ack !== undefined) stream.receive(decodeAttachRequest(ack));
    plan = undefined;
    stream.receive(decodeAttachRequest(message));
    const answer = plan as Plan | undefined;
    if (answer === undefined) throw new Error(`step ${step} was not answered`);
    planBytes = encodePlan(answer);
    const duration = performance.now() - begin;
    const after = process.memoryUsage();
    if (answer.requests.length !== REQUESTS)
      throw new Error(`step ${step} selected for ${answer.requests.length} only`);
    tokens += BLOCK_SIZE;
    if (step <= WARMUP) continue;
    durations[step - WARMUP - 1] = duration;
    // A collection in between makes the difference negative; such a step says nothing.
    const grown = after.heapUsed - before.heapUsed + after.arrayBuffers - before.arrayBuffers;
    allocated += Math.max(0, grown);
    evicted += answer.requests.reduce((sum, request) => sum + request.evict.length, 0);
  }
  stream.close();
  const bad = await engines.metrics.badMessages.get();
  const dropped = bad.values.filter(({ value }) => value > 0);
  if (dropped.length > 0) throw new Error(`messages were dropped: ${JSON.stringify(dropped)}`);
  const at = (values: Float64Array, share: number) =>
    values.toSorted()[Math.min(STEPS - 1, Math.floor(share * STEPS))]!;
  const round = (value: number) => Math.round(value * 1000) / 1000;
  const figures = {
    step_p50_ms: round(at(durations, 0.5)),
    step_p99_ms: round(at(durations, 0.99)),
    step_max_ms: round(at(durations, 1)),
    alloc_bytes_per_step: Math.round(allocated / STEPS),
    message_bytes: templates[0]!(FIRST_STEP, tokens).length,
    plan_bytes: planBytes,
    evicted_blocks_per_step: evicted / STEPS,
  };
  const conditions = {
    requests: REQUESTS,
    blocks: BLOCKS,
    head_groups: GROUPS,
    policy,
    controller: 'fixed',
    warmup_steps: WARMUP,
    steps: STEPS,
    // The percentiles are wall time: above one process for each core they measure the neighbours as well.
    load_average_1m: round(loadavg()[0]!),
    seed,
  };
  process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
  const name = policy === 'crystal' ? 'policy' : `policy-${policy}`;
  report({ conditions, figures, rows: Array.from(durations, round) }, name);
}

/**
 * Makes step messages. They are encoded once and then patched, so that each arrives as one fresh buffer, as from the
 * network, without the garbage of encoding it. Varints have a fixed length here: steps two bytes, token counts three.
 */
function createTemplate(
  rotation: number,
  codes: readonly Buffer[],
): (step: number, computedTokens: number) => Uint8Array {
  const bytes = encodeStep(128, 16_384, rotation, codes);
  const other = encodeStep(257, 32_897, rotation, codes);
  const places: number[] = [];
  for (let i = 0; i < bytes.length; i += 1) if (bytes[i] !== other[i]) places.push(i);
  if (places.length !== 2 + 3 * REQUESTS) throw new Error(`found ${places.length} bytes to patch`);
  return (step, computedTokens) => {
    const message = Buffer.allocUnsafeSlow(bytes.length);
    message.set(bytes);
    message[places[0]!] = (step & 127) | 128;
    message[places[1]!] = step >>> 7;
    for (let i = 2; i < places.length; i += 3) {
      message[places[i]!] = (computedTokens & 127) | 128;
      message[places[i + 1]!] = ((computedTokens >>> 7) & 127) | 128;
      message[places[i + 2]!] = computedTokens >>> 14;
    }
    return message;
  };
}

function encodeStep(step: number, computedTokens: number, rotation: number, codes: readonly Buffer[]): Uint8Array {
  const requests: RequestStep[] = [];
  for (let handle = 1; handle <= REQUESTS; handle += 1) {
    const masses = codes[(handle + rotation * 7) % codes.length]!;
    requests.push({ handle, epoch: 0, computedTokens, phase: Phase.PHASE_THINKING, segmentStarts: [], masses });
  }
  const pool = { freeBlocks: 8, totalBlocks: REQUESTS * (BLOCKS + 8), waiting: 0, running: REQUESTS, preemptions: 0n };
  return AttachRequest.encode({
    message: { $case: 'step', value: { step: BigInt(step), pool, requests, more: false } },
  }).finish();
}

function encodeAck({ sequence, requests }: Plan, step: number): Uint8Array {
  return AttachRequest.encode({
    message: {
      $case: 'ack',
      value: {
        planSequence: sequence,
        appliedAtStep: BigInt(step),
        requests: requests.map(({ handle, epoch, evict }) => ({
          handle,
          epoch,
          evicted: evict,
          rejected: [],
          merged: [],
          shadowEvicted: [],
          probe: 0,
        })),
      },
    },
  }).finish();
}

function encodePlan(value: Plan): number {
  return AttachResponse.encode({ message: { $case: 'plan', value } }).finish().length;
}

/** Masses as attention has them: a few blocks with most of it, a long tail; each group sums to 1. */
function realisticCodes(random: Random): Buffer {
  const codes = Buffer.alloc(GROUPS * BLOCKS);
  for (let group = 0; group < GROUPS; group += 1) {
    const weights = Array.from({ length: BLOCKS }, () => (1 - random.fraction()) ** -1.5);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let block = 0; block < BLOCKS; block += 1) {
      codes[group * BLOCKS + block] = Math.min(31, Math.floor(-2 * Math.log2(weights[block]! / total)));
    }
  }
  return codes;
}
