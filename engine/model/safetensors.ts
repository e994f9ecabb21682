import { readFileSync } from 'node:fs';

export interface Tensor {
  shape: readonly number[];
  data: Float32Array;
}

/**
 * Reads a safetensors file of float32 tensors.
 * Throws an Error that names the file when it is cut short, and the tensor when it has another type.
 */
export function readSafetensors(path: string): Map<string, Tensor> {
  const file = readFileSync(path);
  if (file.length < 8) throw new Error(`${path} is not a safetensors file: ${file.length} bytes`);
  const headerLength = Number(file.readBigUInt64LE(0));
  const start = 8 + headerLength;
  if (start > file.length) throw new Error(`${path} is cut short: a header of ${headerLength} bytes was announced`);
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<string, HeaderEntry>;
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    if (entry.dtype !== 'F32') throw new Error(`${path}: ${name} is ${entry.dtype}; only F32 is supported`);
    const [from, to] = entry.data_offsets;
    if (start + to > file.length) throw new Error(`${path} is cut short: ${name} ends at byte ${start + to}`);
    // a copy, because the offsets in the file need not be multiples of four
    const bytes = Uint8Array.from(file.subarray(start + from, start + to));
    tensors.set(name, { shape: entry.shape, data: new Float32Array(bytes.buffer) });
  }
  return tensors;
}

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
