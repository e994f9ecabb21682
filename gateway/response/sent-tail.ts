const TAIL_BYTES = 64;
const DONE = /(^|[\r\n])data: ?\[DONE\][\r\n]*$/;

/** Where the client of an event stream is: the end of what it was sent. */
export interface SentTail {
  note(sent: Buffer): void;
  /** `data: [DONE]` was the last. */
  done(): boolean;
  /** What has to be sent before an event of our own; undefined inside an overlong line: nothing can follow that. */
  bridge(): string | undefined;
}

export function createSentTail(): SentTail {
  let tail = '';
  return {
    note(sent) {
      tail = (tail + sent.toString('latin1', Math.max(0, sent.length - TAIL_BYTES))).slice(-TAIL_BYTES);
    },
    done: () => DONE.test(tail),
    bridge() {
      if (tail === '' || /(\n\n|\r\r|\r\n\r\n)$/.test(tail)) return '';
      return /[\r\n]$/.test(tail) ? '\n' : undefined;
    },
  };
}
