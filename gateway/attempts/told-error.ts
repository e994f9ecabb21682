import type { StreamForm } from '../routes.ts';

/** An error that a stream told as an event. */
export interface ToldError {
  /** As far as it says one. */
  status: number | undefined;
  /** Nothing came before it. */
  first: boolean;
}

/** What the first event of a stream is; `open`: it has not come. */
type First = 'open' | 'good' | 'error';

/** Looks for errors in a stream as it passes, in the forms of the four APIs. */
export interface ErrorWatch {
  readonly first: First;
  readonly told: ToldError | undefined;
  see(chunk: Buffer): void;
}

const ERROR = Buffer.from('error');
const FAILED = Buffer.from('response.failed');
const EVENT = /(?:^|[\r\n])(?:data: ?\{\s*"error"\s*:|event: ?(?:error|response\.failed)[\r\n])/;
const DATA = /(?:^|[\r\n])data:[^\r\n]*[\r\n]/;
const STATUS = /"code"\s*:\s*"?(\d{3})\b/;
const MAX_BYTES = 4 * 1024;

export function createErrorWatch(form: StreamForm): ErrorWatch {
  let beginning = '';
  let first: First = 'open';
  let told: ToldError | undefined;
  const tell = (text: string, isFirst: boolean) => {
    const status = STATUS.exec(text)?.[1];
    told = { status: status === undefined ? undefined : Number(status), first: isFirst };
  };
  return {
    get first() {
      return first;
    },
    get told() {
      return told;
    },
    see(chunk) {
      if (first === 'open') {
        beginning += chunk.toString('latin1', 0, MAX_BYTES);
        const data = DATA.exec(beginning);
        if (data === null && beginning.length < MAX_BYTES) return;
        const end = data === null ? beginning.length : data.index + data[0].length;
        first = EVENT.test(beginning.slice(0, end)) ? 'error' : 'good';
        if (first === 'error') tell(beginning, true);
        beginning = '';
      }
      if (told !== undefined || !(chunk.includes(ERROR) || (form === 'responses' && chunk.includes(FAILED)))) return;
      const text = chunk.toString('latin1');
      const at = text.search(EVENT);
      if (at !== -1) tell(text.slice(at, at + MAX_BYTES), false);
    },
  };
}

/** Whether it says that the server failed, not the request. */
export function isServersFault({ status }: ToldError): boolean {
  return status === undefined || status < 400 || status >= 500;
}
