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
  // Copied, not kept: what was sent may be part of something large.
  const tail = Buffer.allocUnsafe(TAIL_BYTES);
  let length = 0;
  const text = () => tail.toString('latin1', 0, length);
  return {
    note(sent) {
      if (sent.length >= TAIL_BYTES) {
        length = sent.copy(tail, 0, sent.length - TAIL_BYTES);
        return;
      }
      const kept = Math.min(length, TAIL_BYTES - sent.length);
      tail.copyWithin(0, length - kept, length);
      length = kept + sent.copy(tail, kept);
    },
    done: () => DONE.test(text()),
    bridge() {
      const sent = text();
      if (sent === '' || /(\n\n|\r\r|\r\n\r\n)$/.test(sent)) return '';
      return /[\r\n]$/.test(sent) ? '\n' : undefined;
    },
  };
}
