import type { IncomingMessage } from 'node:http';

/** The beginning of an upload, read before it is known where it goes. */
export interface UploadHead {
  chunks: readonly Buffer[];
  /** That was all of it. */
  ended: boolean;
  /** The value of the form's field `model`; undefined: it is not in the beginning. */
  model: string | undefined;
}

/** So much is read at most; a form that has its file first may have the field after it. */
const MOST_BYTES = 64 * 1024;
/** A part of a form (RFC 7578): its head, which names it, an empty line and the value. */
const MODEL =
  /\r\ncontent-disposition:\s*form-data;[^\r\n]*\bname="?model"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n/i;

/** Reads on until the field is found. Leaves the request paused. Undefined: the client left. */
export function readUploadHead(request: IncomingMessage): Promise<UploadHead | undefined> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let text = '';
    const settle = (head: UploadHead | undefined) => {
      request.pause();
      request.off('data', onData).off('end', onEnd).off('close', onClose);
      resolve(head);
    };
    const onData = (chunk: Buffer) => {
      chunks.push(chunk);
      text += chunk.toString('latin1', 0, MOST_BYTES - text.length);
      const model = MODEL.exec(text)?.[1];
      if (model === undefined && text.length < MOST_BYTES) return;
      settle({ chunks, ended: false, model: model && Buffer.from(model, 'latin1').toString('utf8') });
    };
    const onEnd = () => settle({ chunks, ended: true, model: undefined });
    const onClose = () => settle(undefined);
    request.on('data', onData).on('end', onEnd).on('close', onClose);
  });
}
