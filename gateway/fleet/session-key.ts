import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { JsonSyntaxError, lastMember, type ObjectRange, OPEN_BRACE, QUOTE, scanObject } from '../json/scan.ts';

/** A longer one is none. */
const MAX_BYTES = 1024;
/** The object that holds `user_id` has little else. */
const MAX_METADATA_BYTES = 16 * 1024;

/**
 * A hash of what a client calls its conversation by: `prompt_cache_key` (Codex), `metadata.user_id` (Claude Code: it names
 * the session), the header, or `user`. Undefined when it names none.
 */
export function sessionHash(
  json: Buffer,
  object: ObjectRange,
  headers: IncomingHttpHeaders,
  header: string,
): number | undefined {
  const named = headers[header];
  const key =
    textOf(json, object, 'prompt_cache_key') ??
    metadataUser(json, object) ??
    (typeof named === 'string' && named !== '' && named.length <= MAX_BYTES ? named : undefined) ??
    textOf(json, object, 'user');
  return key === undefined ? undefined : Number.parseInt(hash('sha1', key).slice(0, 8), 16);
}

/** As it is written, without its quotes; one client writes the same always the same way. */
function textOf(json: Buffer, object: ObjectRange, name: string): string | undefined {
  const member = lastMember(object, name);
  if (member === undefined || json[member.valueStart] !== QUOTE) return undefined;
  const length = member.end - member.valueStart - 2;
  return length > 0 && length <= MAX_BYTES ? json.toString('latin1', member.valueStart + 1, member.end - 1) : undefined;
}

function metadataUser(json: Buffer, object: ObjectRange): string | undefined {
  const metadata = lastMember(object, 'metadata');
  if (metadata === undefined || json[metadata.valueStart] !== OPEN_BRACE) return undefined;
  if (metadata.end - metadata.valueStart > MAX_METADATA_BYTES) return undefined;
  try {
    return textOf(json, scanObject(json, metadata.valueStart), 'user_id');
  } catch (error) {
    // It has more members than are read.
    if (error instanceof JsonSyntaxError) return undefined;
    throw error;
  }
}
