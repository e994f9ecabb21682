/** What this process holds of request bodies, all together. */
export interface BodyMemory {
  /** Bytes. */
  readonly held: number;
  /** Whether there is room for so many more. */
  hasRoom(bytes: number): boolean;
  /** They are held from now on. */
  take(bytes: number): void;
  give(bytes: number): void;
}

/** `most` bytes at a time. */
export function createBodyMemory(most: () => number): BodyMemory {
  let held = 0;
  return {
    get held() {
      return held;
    },
    hasRoom: (bytes) => held + bytes <= most(),
    take(bytes) {
      held += bytes;
    },
    give(bytes) {
      held -= bytes;
    },
  };
}
