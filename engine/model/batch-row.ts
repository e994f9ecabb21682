import type { Chunk } from './step-model.ts';

/** Where a chunk's tokens are in the step's buffers. */
export interface Row {
  token: number;
  count: number;
  /** Byte offset of its compacted block ids. */
  pointer: number;
  /** How many of them: the resident blocks. */
  blocks: number;
  /** Tokens in the holes. */
  skipped: number;
  /** The compacted blocks for whose tokens queries count, `to` not included. */
  counted: { from: number; to: number };
  chunk: Chunk;
}

/** Writes the ids of a chunk's resident blocks, in logical order, to `ids`, which is at `pointer`. */
export function layOutRow(chunk: Chunk, token: number, pointer: number, ids: Int32Array, blockSize: number): Row {
  const count = chunk.tokenIds.length;
  const last = Math.floor((chunk.position + count - 1) / blockSize);
  let blocks = 0;
  for (let b = 0; b <= last; b++) {
    const id = chunk.blocks[b]!;
    if (id !== 0) ids[blocks++] = id;
  }
  const counted = {
    from: countResident(chunk.blocks, chunk.counts?.from ?? 0),
    to: countResident(chunk.blocks, chunk.counts?.to ?? 0),
  };
  return { token, count, pointer, blocks, skipped: (last + 1 - blocks) * blockSize, counted, chunk };
}

/** The number of resident blocks below a logical index. */
function countResident(blocks: readonly number[], end: number): number {
  let count = 0;
  for (let i = 0; i < Math.min(end, blocks.length); i++) if (blocks[i] !== 0) count++;
  return count;
}
