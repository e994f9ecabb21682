import { randomUUID } from 'node:crypto';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Logger } from '../common/logger.ts';
import { PROTOCOL } from '../common/protocol.ts';
import { Capability } from '../proto/gen/crystalkv/v1/policy.ts';
import type { EngineConfig } from './config.ts';
import type { CoreOptions } from './core/options.ts';
import { type ModelConfig, readModelConfig } from './model/config.ts';
import { KNOWN_STATISTICS } from './model/token-figures.ts';
import { PolicyClient } from './policy-client.ts';
import { encodeBeforeText } from './probe-suffix.ts';
import type { Engine, EngineInfo, EngineStats, GenerateEvent, GenerateRequest, Submission } from './types.ts';
import type { FromWorker, ToWorker } from './worker-protocol.ts';

/** Turns text from the configuration into token ids. */
export type Encode = (text: string) => number[];

/**
 * Starts the worker thread with the model and, if an address is configured, the stream to the policy service.
 * Rejects when the model cannot be loaded or does not fit the pool.
 */
export async function createEngine(config: EngineConfig, encode: Encode, logger: Logger): Promise<Engine> {
  const model = readModelConfig(config.model);
  const options = coreOptions(config, model, encode);
  const worker = new Worker(new URL(`./worker${extname(import.meta.url)}`, import.meta.url), {
    workerData: options,
    name: 'engine',
  });
  const post = (message: ToWorker) => worker.postMessage(message);
  const ready = await new Promise<Extract<FromWorker, { type: 'ready' }>>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('message', (message: FromWorker) => message.type === 'ready' && resolve(message));
  });

  const live = new Map<string, { onEvent: (event: GenerateEvent) => void; promptTokens: number; generated: number }>();
  const failureListeners: ((error: Error) => void)[] = [];
  let stats = ready.stats;
  let failure: Error | undefined;
  let closing = false;

  const client =
    config.policy_address === ''
      ? undefined
      : new PolicyClient(
          {
            address: config.policy_address,
            token: config.policy_token,
            caFile: config.policy_ca,
            hello: helloOf(config, model, options, ready.bytesPerBlock),
            logger,
          },
          {
            onConfigure: (configure, first) => post({ type: first ? 'attach' : 'configure', configure }),
            onPlan: (plan) => post({ type: 'plan', plan }),
            onDetached: () => post({ type: 'detach' }),
          },
        );

  const deliver = (id: string, event: GenerateEvent) => {
    const receiver = live.get(id);
    if (receiver === undefined) return;
    if (event.type === 'finished') live.delete(id);
    else receiver.generated += 1;
    receiver.onEvent(event);
  };
  worker.on('message', (message: FromWorker) => {
    if (message.type === 'report') client?.send(message.message);
    else if (message.type === 'events') {
      stats = message.stats;
      for (const { id, event } of message.events) deliver(id, event);
    }
  });
  const fail = (error: Error) => {
    if (failure !== undefined || closing) return;
    failure = error;
    logger.error({ error: error.message }, 'the engine has failed');
    for (const [id, { promptTokens, generated }] of [...live]) {
      deliver(id, { type: 'finished', reason: 'abort', promptTokens, cachedTokens: 0, generatedTokens: generated });
    }
    for (const listener of failureListeners) listener(error);
  };
  worker.on('error', fail);
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  worker.on('exit', (code) => fail(new Error(`the worker exited with code ${code}`)));

  const info: EngineInfo = {
    model: config.served_model_name,
    maxModelLength: options.maxModelLength,
    vocabSize: model.vocab,
    eosTokenId: model.eosTokenId,
    blockSize: config.block_size,
    blockBytes: ready.bytesPerBlock,
    totalBlocks: config.pool_blocks,
  };
  return {
    info,
    submit(request, onEvent): Submission {
      checkPrompt(request, info);
      if (failure !== undefined) throw failure;
      live.set(request.id, { onEvent, promptTokens: request.promptTokenIds.length, generated: 0 });
      post({ type: 'submit', request });
      return { abort: () => live.has(request.id) && post({ type: 'abort', id: request.id }) };
    },
    stats(): EngineStats {
      const droppedReports = client?.droppedSteps ?? 0;
      const { policy } = stats;
      return {
        ...stats,
        policy: {
          ...policy,
          connected: client?.attached ?? false,
          missedSteps: policy.missedSteps + droppedReports,
          droppedReports,
        },
      };
    },
    onFailure: (listener) => failureListeners.push(listener),
    async close() {
      if (closing) return exited;
      closing = true;
      post({ type: 'close' });
      await exited;
      client?.close();
    },
  };
}

function coreOptions(config: EngineConfig, model: ModelConfig, encode: Encode): CoreOptions {
  const poolTokens = config.pool_blocks * config.block_size;
  const longest = Math.min(model.maxPositions, poolTokens);
  const maxModelLength = config.max_model_length ?? longest;
  if (maxModelLength > longest) {
    throw new RangeError(
      `engine.max_model_length is ${maxModelLength}: at most ${longest} is possible (the model has ` +
        `${model.maxPositions} positions, the pool of ${config.pool_blocks} blocks holds ${poolTokens} tokens)`,
    );
  }
  return {
    modelFolder: config.model,
    weights: config.weights,
    blockSize: config.block_size,
    poolBlocks: config.pool_blocks,
    maxSequences: config.max_num_seqs,
    maxTokensPerStep: Math.max(config.max_num_batched_tokens, config.max_num_seqs),
    maxModelLength,
    protection: { sinkTokens: config.sink_tokens, recentTokens: config.recent_tokens },
    endOfThinking: config.end_of_thinking.map(encode),
    probeSuffix: suffixOf(config, encode),
    segmentMarkers: config.segment_markers.map(encode).flatMap((ids) => (ids.length === 1 ? ids : [])),
    enabled: config.enabled,
    lockstepTimeoutMs: config.lockstep ? config.lockstep_timeout_ms : undefined,
    managed: config.policy_address !== '' && config.enabled,
  };
}

function suffixOf({ probe_suffix: text, end_of_thinking: [end] }: EngineConfig, encode: Encode) {
  if (text !== undefined) return encodeBeforeText(text, encode);
  return end === undefined ? undefined : encode(end);
}

function helloOf(config: EngineConfig, model: ModelConfig, options: CoreOptions, bytesPerBlock: number) {
  return {
    protocolMin: PROTOCOL.min,
    protocolMax: PROTOCOL.max,
    engineId: config.engine_id,
    instanceId: randomUUID(),
    model: config.served_model_name,
    blockSize: config.block_size,
    bytesPerBlock: BigInt(bytesPerBlock),
    poolBlocks: config.pool_blocks,
    layers: model.layers,
    headGroups: model.layers * model.kvHeads,
    endOfThinking: options.endOfThinking.map((ids) => ({ tokenIds: [...ids] })),
    probeSuffixTokens: options.probeSuffix?.length ?? 0,
    segmentMarkerTokenIds: [...options.segmentMarkers],
    capabilities: [
      Capability.CAPABILITY_EVICT,
      Capability.CAPABILITY_PROBE,
      Capability.CAPABILITY_SHADOW,
      Capability.CAPABILITY_MERGE,
      Capability.CAPABILITY_SHADOW_MERGE,
    ],
    sinkTokens: config.sink_tokens,
    recentTokens: config.recent_tokens,
    lockstep: config.lockstep,
    statistics: [...KNOWN_STATISTICS],
  };
}

function checkPrompt(request: GenerateRequest, info: EngineInfo): void {
  const { promptTokenIds } = request;
  if (promptTokenIds.length === 0 || promptTokenIds.length >= info.maxModelLength) {
    throw new RangeError(`the prompt has ${promptTokenIds.length} tokens: 1 to ${info.maxModelLength - 1} are allowed`);
  }
  const unknown = promptTokenIds.find((id) => !Number.isInteger(id) || id < 0 || id >= info.vocabSize);
  if (unknown !== undefined)
    throw new RangeError(`token id ${unknown} is not in the vocabulary: ids are 0 to ${info.vocabSize - 1}`);
}
