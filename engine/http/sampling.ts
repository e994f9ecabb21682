import type { EngineInfo, Sampling } from '../types.ts';
import { ApiError } from './errors.ts';
import type { SamplingFields } from './sampling-fields.ts';

/** Used where a request does not say. */
export interface SamplingDefaults {
  /** 0 is greedy. */
  temperature: number;
  topP: number;
  /** 0 keeps every token. */
  topK: number;
}

/** Greedy, because crystal-mini computes rather than writes. vLLM's default without a generation config is 1.0. */
export const GREEDY: SamplingDefaults = Object.freeze({ temperature: 0, topP: 1, topK: 0 });

/** `wanted` was requested and must fit. Without it: `fallback`, or what is left of the model's length. */
export interface OutputLength {
  wanted: number | undefined;
  fallback: number;
}

/** The sampling of one prompt; `forChoice` gives each of its sequences a seed of its own. */
export function resolveSampling(
  fields: SamplingFields,
  length: OutputLength,
  promptTokens: number,
  logprobs: number | undefined,
  info: EngineInfo,
  defaults: SamplingDefaults,
): Sampling {
  return {
    maxTokens: resolveMaxTokens(length, promptTokens, info.maxModelLength),
    temperature: fields.temperature ?? defaults.temperature,
    topP: fields.top_p ?? defaults.topP,
    topK: Math.max(0, fields.top_k ?? defaults.topK),
    seed: fields.seed ?? undefined,
    ignoreEos: fields.ignore_eos ?? false,
    stopTokenIds: fields.stop_token_ids ?? [],
    logprobs,
  };
}

function resolveMaxTokens(length: OutputLength, promptTokens: number, maxModelLength: number): number {
  const wanted = length.wanted ?? 0;
  const room = maxModelLength - promptTokens;
  if (room < Math.max(1, wanted)) {
    throw new ApiError(
      'invalid',
      `This model's maximum context length is ${maxModelLength} tokens. However, you requested ${wanted} output tokens ` +
        `and your prompt contains ${promptTokens} input tokens, for a total of ${promptTokens + wanted} tokens. Please ` +
        'reduce the length of the input prompt or the number of requested output tokens.',
      'input_tokens',
    );
  }
  return length.wanted ?? Math.min(length.fallback, room);
}

/** Choice 0 of a seeded request is the same for every `n`; the others differ from it and from each other. */
export function forChoice(sampling: Sampling, choice: number): Sampling {
  return sampling.seed === undefined ? sampling : { ...sampling, seed: mixSeed(sampling.seed, choice) };
}

/**
 * A 32-bit seed from a 64-bit seed and a choice. The bits are mixed (MurmurHash3's finaliser), because generators with
 * neighbouring seeds start almost alike.
 */
function mixSeed(seed: number, choice: number): number {
  let hash = ((seed % 2 ** 32) | 0) ^ Math.imul(Math.floor(seed / 2 ** 32) | 0, 0x9e3779b1);
  hash = (hash + Math.imul(choice, 0x9e3779b9)) | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
