import type { ServerResponse } from 'node:http';
import type { Choice, Delta } from './choice.ts';
import type { ApiError } from './errors.ts';
import type { Generation } from './generation.ts';
import { SseWriter } from './sse-writer.ts';
import type { Usage } from './usage.ts';

/** One chunk of a stream, or several; nothing: none. */
type Chunks = object | readonly object[] | undefined;

/** What differs between the paths that generate. */
export interface AnswerFormat {
  /** Each chunk is an event of its `type`, and the stream has no `[DONE]`. */
  named?: true;
  /** The first chunk of a choice, before its content; undefined: there is none. */
  opening(choice: Choice): Chunks;
  /** Undefined when the delta contains nothing for the client. */
  chunk(choice: Choice, delta: Delta): Chunks;
  /** The last chunk of a stream, if usage was requested. */
  usageChunk(usage: Usage): Chunks;
  /** The complete response; `deltas` holds all output of each choice. */
  full(choices: readonly Choice[], deltas: readonly Delta[], usage: Usage): object;
  usage(choices: readonly Choice[]): Usage;
  /** A failure in the middle of a stream; default: the error's body. */
  failure?(error: ApiError): Chunks;
}

export interface AnswerOptions {
  response: ServerResponse;
  format: AnswerFormat;
  /** Starts generating. What it throws decides the status of the response. */
  start(onUpdate: () => void): Generation;
  stream: boolean;
  includeUsage: boolean;
  /** Called when the client left before the end. */
  onClientGone(): void;
  /** Called when the answer has been sent, or its client has left. */
  onFinished(generation: Generation): void;
}

/**
 * Answers a request with what is being generated. When the client leaves, all its sequences are aborted at once.
 * Rejects with an ApiError as long as the status can still report a failure; later failures go into the stream.
 */
export function answer(options: AnswerOptions): Promise<void> {
  const { response, start, stream, onClientGone, onFinished } = options;
  return new Promise((resolve, reject) => {
    let pump: (() => void) | undefined;
    let generation: Generation;
    try {
      generation = start(() => pump?.());
    } catch (error) {
      reject(error);
      return;
    }
    response.once('close', () => {
      if (!generation.settled) {
        onClientGone();
        generation.abort();
      }
      onFinished(generation);
      resolve();
    });
    pump = stream ? streamer(generation, options, reject) : collector(generation, options, reject);
    // The engine may already have produced something, and the client may already be gone.
    if (response.destroyed) generation.abort();
    else pump();
  });
}

function collector(generation: Generation, options: AnswerOptions, reject: (error: Error) => void): () => void {
  const { response, format } = options;
  return () => {
    if (generation.failure !== undefined) reject(generation.failure);
    else if (generation.settled) {
      const { choices } = generation;
      const deltas = choices.map((choice) => choice.take() ?? { pieces: [], tokens: [], end: undefined });
      const body = JSON.stringify(format.full(choices, deltas, format.usage(choices)));
      response.writeHead(200, { 'content-type': 'application/json' }).end(body);
    }
  };
}

/**
 * Writes what is available while the socket takes it. Otherwise the choices collect new output, so that a slow reader
 * gets fewer, longer chunks and costs no more memory than its response.
 */
function streamer(generation: Generation, options: AnswerOptions, reject: (error: Error) => void): () => void {
  const { response, format, includeUsage } = options;
  const unopened = new Set(generation.choices);
  let over = false;
  const writer = new SseWriter(response, () => pump(), format.named ?? false);
  const send = (chunks: Chunks) => {
    for (const chunk of chunks === undefined ? [] : [chunks].flat()) writer.send(chunk);
  };

  const pump = () => {
    if (over) return;
    if (generation.failure !== undefined) {
      over = true;
      if (!writer.started) reject(generation.failure);
      else {
        send(format.failure?.(generation.failure) ?? generation.failure.body());
        writer.done();
      }
      return;
    }
    for (const choice of generation.choices) {
      if (!writer.writable) return;
      const delta = choice.take();
      if (delta === undefined) continue;
      for (const other of unopened) {
        send(format.opening(other));
      }
      unopened.clear();
      send(format.chunk(choice, delta));
    }
    if (!writer.writable || !generation.choices.every((choice) => choice.exhausted)) return;
    over = true;
    if (includeUsage) send(format.usageChunk(format.usage(generation.choices)));
    writer.done();
  };
  return pump;
}
