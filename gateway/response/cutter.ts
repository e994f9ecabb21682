import { COLON } from '../json/scan.ts';
import { CR, LF, lastBlankLine } from './events.ts';

/**
 * Cuts the bytes of an event stream where something may follow: after whole lines, or after whole events for those who
 * look into them. The line that is still open waits for its end, which delays nothing that a reader could use; so when
 * the backend breaks off in the middle of a line or of a character, an error event can follow that every reader
 * understands.
 */
export interface Cutter {
  /** The bytes up to the last cut, possibly none; what follows waits. */
  push(chunk: Buffer): Buffer;
  /** What waits, as far as it is whole lines. */
  lines(): Buffer;
  /** What waits. */
  rest(): Buffer;
}

interface Unit {
  /** Bytes before a chunk that belong to a cut in it: a blank line may lie across two chunks. */
  lookback: number;
  /** More does not wait: it is passed on in pieces. */
  maxHeldBytes: number;
  /** The offset after the last cut; 0 when there is none. */
  lastCut(bytes: Buffer): number;
  /** Comments before an event do not wait for it: they are there to keep a connection alive. */
  commentsPass: boolean;
}

const UNITS = {
  line: { lookback: 0, maxHeldBytes: 256 * 1024, lastCut: lastLineEnd, commentsPass: false },
  // The last event of the responses API holds the whole response.
  event: { lookback: 3, maxHeldBytes: 16 * 1024 * 1024, lastCut: lastBlankLine, commentsPass: true },
} as const satisfies Record<string, Unit>;

const EMPTY = Buffer.alloc(0);
/** In longer ones nobody looks for a comment. */
const COMMENT_BYTES = 4096;

export function createCutter(of: keyof typeof UNITS): Cutter {
  const unit: Unit = UNITS[of];
  let held: Buffer[] = [];
  let heldBytes = 0;
  let tail: Buffer = EMPTY;

  const hold = (bytes: Buffer) => {
    if (bytes.length === 0) return;
    held.push(bytes);
    heldBytes += bytes.length;
  };
  const release = (): Buffer => {
    const bytes = held.length === 1 ? (held[0] as Buffer) : Buffer.concat(held);
    held = [];
    heldBytes = 0;
    tail = EMPTY;
    return bytes;
  };
  const keepTail = (seen: Buffer) => {
    tail = seen.subarray(Math.max(0, seen.length - unit.lookback));
  };

  return {
    push(chunk) {
      const seen = tail.length === 0 ? chunk : Buffer.concat([tail, chunk]);
      const end = unit.lastCut(seen) - tail.length;
      if (end === chunk.length && heldBytes === 0) return chunk;
      if (end <= 0) {
        hold(chunk);
        keepTail(seen);
        if (unit.commentsPass && heldBytes <= COMMENT_BYTES && held[0]?.[0] === COLON) {
          const bytes = release();
          const comments = commentsEnd(bytes);
          hold(bytes.subarray(comments));
          keepTail(bytes.subarray(comments));
          return bytes.subarray(0, comments);
        }
        return heldBytes > unit.maxHeldBytes ? release() : EMPTY;
      }
      const cut = unit.commentsPass ? end + commentsEnd(chunk.subarray(end)) : end;
      hold(chunk.subarray(0, cut));
      const whole = release();
      const open = chunk.subarray(cut);
      hold(open);
      keepTail(open);
      return whole;
    },
    lines() {
      const bytes = release();
      const end = lastLineEnd(bytes);
      hold(bytes.subarray(end));
      return bytes.subarray(0, end);
    },
    rest: release,
  };
}

function lastLineEnd(bytes: Buffer): number {
  const lineFeed = bytes.lastIndexOf(LF);
  return (lineFeed === -1 ? bytes.lastIndexOf(CR) : lineFeed) + 1;
}

/** The offset after the comments, whole lines, that bytes between two events begin with. */
function commentsEnd(bytes: Buffer): number {
  let end = 0;
  while (bytes[end] === COLON) {
    const lineFeed = bytes.indexOf(LF, end);
    const carriage = bytes.indexOf(CR, end);
    if (lineFeed === -1 || (carriage !== -1 && carriage < lineFeed - 1)) break;
    end = lineFeed + 1;
  }
  return end;
}
