import { readFileSync } from 'node:fs';

/** The compiled kernels; see assembly/ for their contracts. Pointers are byte offsets into `Arena.memory`. */
export interface Kernels {
  matmul(out: number, x: number, w: number, n: number, rows: number, cols: number): void;
  quantize(out: number, scales: number, x: number, n: number, cols: number): void;
  matmulInt8(out: number, q: number, scales: number, w: number, n: number, rows: number, cols: number): void;
  rmsNorm(out: number, x: number, w: number, n: number, size: number, eps: number): void;
  add(x: number, y: number, count: number): void;
  swiglu(out: number, gateUp: number, n: number, size: number): void;
  rope(
    x: number,
    n: number,
    heads: number,
    headDim: number,
    stride: number,
    positions: number,
    cos: number,
    sin: number,
  ): void;
  storeKv(
    keyBlock: number,
    valueBlock: number,
    k: number,
    v: number,
    offset: number,
    blockSize: number,
    headDim: number,
  ): void;
  attention(
    out: number,
    q: number,
    row: number,
    keys: number,
    keyCache: number,
    valueCache: number,
    blockStride: number,
    headStride: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    blockSize: number,
    scores: number,
    masses: number,
    mean: number,
    most: number,
  ): void;
  weigh(
    q: number,
    beside: number,
    row: number,
    keys: number,
    keyCache: number,
    blockStride: number,
    headStride: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    blockSize: number,
    scores: number,
    mean: number,
    most: number,
  ): void;
  logCodes(out: number, masses: number, count: number): void;
  plainKeys(
    out: number,
    block: number,
    positions: number,
    blockSize: number,
    headDim: number,
    cos: number,
    sin: number,
  ): void;
  repetition(out: number, x: number, positions: number, count: number, n: number, headDim: number): void;
  noteQuery(
    mean: number,
    most: number,
    row: number,
    from: number,
    to: number,
    headOffset: number,
    blockStride: number,
    blockSize: number,
    attention: number,
    total: number,
    peak: number,
    answer: number,
    before: number,
    now: number,
    last: number,
    attentionDecay: number,
    peakDecay: number,
    turn: number,
  ): void;
  noteProbe(
    most: number,
    row: number,
    from: number,
    to: number,
    headOffset: number,
    blockStride: number,
    blockSize: number,
    peak: number,
    answer: number,
  ): void;
}

const PAGE = 65536;
const ALIGN = 64;
const MAX_PAGES = 65536;

/** Memory for weights, cache and activations. It is reserved once and never freed. */
export class Arena {
  readonly memory = new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES });
  #next = ALIGN;

  /** Bytes that were reserved so far. */
  get size(): number {
    return this.#next;
  }

  /** Reserves `bytes`, zeroed, aligned to a cache line. Throws RangeError beyond 4 GiB. */
  reserve(bytes: number): number {
    const at = this.#next;
    this.#next = Math.ceil((at + bytes) / ALIGN) * ALIGN;
    const missing = Math.ceil(this.#next / PAGE) - this.memory.buffer.byteLength / PAGE;
    if (missing > 0) {
      try {
        this.memory.grow(missing);
      } catch {
        throw new RangeError(`the model and its KV cache need ${this.#next} bytes; at most 4 GiB is possible`);
      }
    }
    return at;
  }

  /** Views become stale when a later `reserve` grows the memory, so create them last. */
  floats(at: number, count: number): Float32Array {
    return new Float32Array(this.memory.buffer, at, count);
  }

  ints(at: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, at, count);
  }

  bytes(at: number, count: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, count);
  }
}

/** Instantiates kernels.wasm on the arena's memory. */
export function loadKernels(arena: Arena): Kernels {
  const module = new WebAssembly.Module(readFileSync(new URL('./kernels.wasm', import.meta.url)));
  const instance = new WebAssembly.Instance(module, {
    env: {
      memory: arena.memory,
      abort: () => {
        throw new Error('a kernel aborted');
      },
    },
  });
  return instance.exports as unknown as Kernels;
}
