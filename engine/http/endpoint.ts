import type { Request, Response } from 'express';
import type { z } from 'zod';
import type { Sampling } from '../types.ts';
import { type AnswerFormat, answer } from './answer.ts';
import { parseCacheOptions } from './cache-options.ts';
import { parseBody } from './errors.ts';
import type { SequenceRequest } from './generation.ts';
import { checkModel } from './models.ts';
import { adoptRequestId } from './request-id.ts';
import { forChoice, type OutputLength, resolveSampling } from './sampling.ts';
import type { SamplingFields } from './sampling-fields.ts';
import { SequenceText, type TextOptions } from './sequence-text.ts';
import type { Serving } from './serving.ts';
import { refuseUnsupported } from './unsupported-fields.ts';

/** What is to be generated for one prompt. */
export interface Wanted {
  promptTokenIds: readonly number[];
  length: OutputLength;
  /** The most likely tokens to report; undefined: none. */
  logprobs?: number | undefined;
  thinking: TextOptions['thinking'];
}

/** Where the paths that generate differ. */
export interface Endpoint<S extends z.ZodType<SamplingFields>> {
  schema: S;
  /** Before the request's id in that of the response. */
  idPrefix: string;
  /** Throws an ApiError for a body that is for another path. */
  refuse?(body: unknown): void;
  /** Throws an ApiError for fields that cannot be together, or that this engine has not. */
  check(fields: z.output<S>): void;
  /** One for each prompt; each is generated `n` times. Throws an ApiError for a prompt that cannot be read. */
  read(fields: z.output<S>): { wanted: readonly Wanted[]; formatOf(id: string, sampling: Sampling): AnswerFormat };
  /** The stream ends with the usage although nobody asked. */
  alwaysUsage?: true;
}

/** A handler for a path that generates. Nothing is started before everything was checked. */
export function createEndpoint<S extends z.ZodType<SamplingFields>>(serving: Serving, endpoint: Endpoint<S>) {
  const { engine, tokenizer, metrics, lifecycle, defaults } = serving;

  return async function generate(request: Request, response: Response): Promise<void> {
    endpoint.refuse?.(request.body);
    const fields = parseBody(endpoint.schema, request.body);
    refuseUnsupported(request.body);
    checkModel(serving, fields.model);
    endpoint.check(fields);
    const cache = parseCacheOptions(fields.vllm_xargs);
    const id = `${endpoint.idPrefix}${adoptRequestId(request, response, fields.request_id)}`;

    const { wanted, formatOf } = endpoint.read(fields);
    const samplings = wanted.map(({ promptTokenIds, length, logprobs }) =>
      resolveSampling(fields, length, promptTokenIds.length, logprobs, engine.info, defaults),
    );
    const sequences = wanted.flatMap(({ promptTokenIds, thinking }, i) =>
      Array.from({ length: fields.n ?? 1 }, (_, choice): SequenceRequest => {
        const text = new SequenceText({
          ...{ tokenizer, thinking, promptTokenIds },
          stop: fields.stop ?? [],
          includeStop: fields.include_stop_str_in_output ?? false,
          skipSpecialTokens: fields.skip_special_tokens ?? true,
        });
        return { promptTokenIds, sampling: forChoice(samplings[i]!, choice), text };
      }),
    );
    await answer({
      response,
      format: formatOf(id, samplings[0]!),
      start: (onUpdate) => lifecycle.start({ engine, metrics, id, sequences, cache, onUpdate }),
      stream: fields.stream ?? false,
      includeUsage: endpoint.alwaysUsage ?? fields.stream_options?.include_usage ?? false,
      onClientGone: metrics.countClientGone,
      onFinished: (generation) => lifecycle.finish(generation),
    });
  };
}
