import { BACKSLASH, CLOSE_BRACE, CLOSE_BRACKET, OPEN_BRACE, OPEN_BRACKET, QUOTE } from '../json/scan.ts';
import { findUsage, type Usage } from './tokens.ts';

/** A `usage` object has some hundred bytes. */
const MAX_USAGE_BYTES = 64 * 1024;
const KEY = '"usage"';

/**
 * Finds the `usage` of a JSON response while it passes, at the top of the document, in constant memory: embeddings of
 * many inputs are large.
 */
export interface BodyUsage {
  see(chunk: Buffer): void;
  /** After the last chunk. */
  found(): Usage | undefined;
}

export function createBodyUsage(): BodyUsage {
  let depth = 0;
  let inString = false;
  let escaped = false;
  /** The string at depth 1 that is read now, or was read last, while it may still be the key. */
  let word = '';
  let usage: Usage | undefined;
  let captured: Buffer[] | undefined;
  let capturedBytes = 0;

  const stop = () => {
    usage =
      findUsage(Buffer.concat([Buffer.from('{"usage":'), ...(captured ?? []), Buffer.from('}')]))?.tokens ?? usage;
    captured = undefined;
  };

  return {
    see(chunk) {
      let from = 0;
      for (let at = 0; at < chunk.length; at++) {
        const byte = chunk[at] as number;
        if (inString) {
          if (escaped) escaped = false;
          else if (byte === BACKSLASH) escaped = true;
          else if (byte === QUOTE) inString = false;
          if (depth === 1 && word.length <= KEY.length) word += String.fromCharCode(byte);
        } else if (byte === QUOTE) {
          inString = true;
          if (depth === 1) word = '"';
        } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
          depth++;
          if (depth === 2 && byte === OPEN_BRACE && word === KEY) {
            captured = [];
            capturedBytes = 0;
            from = at;
          }
          word = '';
        } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
          depth--;
          if (depth === 1 && captured !== undefined) {
            captured.push(chunk.subarray(from, at + 1));
            stop();
          }
        }
      }
      if (captured === undefined) return;
      captured.push(Buffer.from(chunk.subarray(from)));
      capturedBytes += chunk.length - from;
      if (capturedBytes > MAX_USAGE_BYTES) captured = undefined;
    },
    found: () => usage,
  };
}
