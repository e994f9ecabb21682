import { freemem, totalmem } from 'node:os';

/** Bytes that this process may take; only Linux tells what is in use but could be given back, so elsewhere all there are. */
export function availableMemory(): number {
  const free = process.platform === 'linux' ? freemem() : totalmem();
  // 0: no limit is known
  return Math.min(free, process.constrainedMemory() || free);
}

/** Throws an Error that says what to change when `needed` bytes are not there. */
export function checkMemory(needed: { weights: number; cache: number; rest: number }, available: number): void {
  const { weights, cache, rest } = needed;
  const total = weights + cache + rest;
  if (total <= available) return;
  const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
  throw new Error(
    `too little memory: the model and its KV cache need ${mib(total)} (weights ${mib(weights)}, cache ${mib(cache)}, ` +
      `other ${mib(rest)}), ${mib(available)} are free; a smaller engine.pool_blocks needs less`,
  );
}
