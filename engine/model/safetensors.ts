import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

export interface Tensor {
  shape: readonly number[];
  /** Reads it from the file, anew each time. */
  read(): Float32Array;
}

export interface TensorFile {
  readonly tensors: ReadonlyMap<string, Tensor>;
  close(): void;
}

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/**
 * Opens a safetensors file of float32 tensors. They are read one by one, so that a file need not fit into memory.
 * Throws an Error that names the file when it is missing or cut short, and the tensor when it has another type.
 */
export function openSafetensors(path: string): TensorFile {
  const file = openSync(path, 'r');
  try {
    return { tensors: readHeader(file, path), close: () => closeSync(file) };
  } catch (error) {
    closeSync(file);
    throw error;
  }
}

function readHeader(file: number, path: string): Map<string, Tensor> {
  const { size } = fstatSync(file);
  if (size < 8) throw new Error(`${path} is not a safetensors file: ${size} bytes`);
  const headerLength = Number(read(file, 0, 8).readBigUInt64LE(0));
  const start = 8 + headerLength;
  if (start > size) throw new Error(`${path} is cut short: a header of ${headerLength} bytes was announced`);
  const header = JSON.parse(read(file, 8, headerLength).toString('utf8')) as Record<string, HeaderEntry>;
  const tensors = new Map<string, Tensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [from, to] = data_offsets;
    if (dtype !== 'F32') throw new Error(`${path}: ${name} is ${dtype}; only F32 is supported`);
    if (start + to > size) throw new Error(`${path} is cut short: ${name} ends at byte ${start + to}`);
    tensors.set(name, {
      shape,
      read: () => new Float32Array(read(file, start + from, to - from).buffer, 0, (to - from) / 4),
    });
  }
  return tensors;
}

/** The buffer has memory of its own, from its first byte on. */
function read(file: number, position: number, length: number): Buffer<ArrayBuffer> {
  const buffer = Buffer.from(new ArrayBuffer(length));
  for (let done = 0; done < length; ) {
    const count = readSync(file, buffer, done, length - done, position + done);
    if (count === 0) throw new Error(`the file ended at byte ${position + done}`);
    done += count;
  }
  return buffer;
}
