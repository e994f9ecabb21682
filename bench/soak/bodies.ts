import { createHash, randomBytes } from 'node:crypto';
import type { Random } from '../../model/random.ts';
import { type Behaviour, digestOf, isUpload } from './behaviours.ts';

/** The body of a request, in the pieces in which it is sent. */
export interface Body {
  path: string;
  contentType: string;
  length: number;
  pieces: readonly Buffer[];
  /** How the upstream describes an upload that it got whole; undefined: it is none. */
  digest: string | undefined;
}

const STREAMED: ReadonlySet<Behaviour> = new Set(['stream', 'stream_usage', 'hang_mid', 'half_event', 'no_done']);
const QUESTION = 'a question that takes some thought '.repeat(20);
/** A client that leaves while it sends has sent so much of a chat. */
const FIRST_BYTES = 100;
const PIECE_BYTES = 64 * 1024;
const AUDIO_BYTES = { least: 100_000, most: 600_000 };
const AUDIO = randomBytes(AUDIO_BYTES.most);
const BOUNDARY = 'crystal-kv-soak-2f6a91c4';

export function bodyOf(behaviour: Behaviour, random: Random): Body {
  return isUpload(behaviour) ? form(behaviour, random.integer(AUDIO_BYTES.least, AUDIO_BYTES.most)) : chat(behaviour);
}

function chat(behaviour: Behaviour): Body {
  const bytes = Buffer.from(
    JSON.stringify({
      model: 'soak',
      user: behaviour,
      messages: [{ role: 'user', content: QUESTION }],
      stream: STREAMED.has(behaviour),
      ...(behaviour === 'stream_usage' && { stream_options: { include_usage: true } }),
    }),
  );
  return {
    path: '/v1/chat/completions',
    contentType: 'application/json',
    length: bytes.length,
    pieces: [bytes.subarray(0, FIRST_BYTES), bytes.subarray(FIRST_BYTES)],
    digest: undefined,
  };
}

function form(behaviour: Behaviour, audioBytes: number): Body {
  const field = (name: string, value: string) =>
    `--${BOUNDARY}\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
  const file = `--${BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n`;
  const bytes = Buffer.concat([
    Buffer.from(field('model', 'soak') + field('user', behaviour) + file),
    AUDIO.subarray(0, audioBytes),
    Buffer.from(`\r\n--${BOUNDARY}--\r\n`),
  ]);
  const count = Math.ceil(bytes.length / PIECE_BYTES);
  return {
    path: '/v1/audio/transcriptions',
    contentType: `multipart/form-data; boundary=${BOUNDARY}`,
    length: bytes.length,
    pieces: Array.from({ length: count }, (_, at) => bytes.subarray(at * PIECE_BYTES, (at + 1) * PIECE_BYTES)),
    digest: digestOf(bytes.length, createHash('sha256').update(bytes).digest('hex')),
  };
}
