import type { IncomingMessage } from 'node:http';
import { GatewayError } from '../errors.ts';
import { dropRest } from './body.ts';
import { boundaryOf } from './form-headers.ts';
import { FieldFinder, type FormField, FormSyntaxError } from './form-scan.ts';

/** The beginning of an upload, read before it is known where it goes. */
export interface UploadHead {
  bytes: Buffer;
  /** That was all of it. */
  ended: boolean;
  /** The form's field `model`; undefined: it is not in the beginning. */
  model: FormField | undefined;
  /** Looks at what comes after the beginning. Throws `malformed_form`. */
  check(chunk: Buffer): void;
}

/** Of a body that is not looked at. */
export const NO_HEAD: UploadHead = { bytes: Buffer.alloc(0), ended: false, model: undefined, check: () => {} };

/** So much is read at most; a form that has its file first may have the field after it. */
const MAX_BYTES = 64 * 1024;

/**
 * Reads on until the field is found. Leaves the request paused. Undefined: the client left. A form must have the field
 * once, and where its value `mustBeFirst`, in the beginning: later it could not be changed, nor another backend be chosen.
 * Rejects with `malformed_form`.
 */
export async function readUploadHead(
  request: IncomingMessage,
  mustBeFirst: (model: string) => boolean,
): Promise<UploadHead | undefined> {
  const boundary = boundaryOf(request.headers['content-type']);
  if (boundary === undefined) return NO_HEAD;
  const finder = new FieldFinder(boundary, 'model');
  let model: FormField | undefined;
  const find = (chunk: Buffer): void => {
    for (const field of found(finder, chunk)) {
      if (model !== undefined) throw malformed('the form has more than one field model');
      model = field;
    }
  };
  const check = (chunk: Buffer): void => {
    const before = model;
    find(chunk);
    if (model !== undefined && model !== before && mustBeFirst(model.value)) {
      throw malformed(
        `the form names the model ${JSON.stringify(model.value)}, an alias, after its first ${MAX_BYTES} bytes: put the field model before the file`,
      );
    }
  };
  return await new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const settle = () => {
      request.pause();
      request.off('data', onData).off('end', onEnd).off('close', onClose);
    };
    const give = (ended: boolean) => {
      settle();
      resolve({ bytes: Buffer.concat(chunks, length), ended, model, check });
    };
    const onData = (chunk: Buffer) => {
      chunks.push(chunk);
      length += chunk.length;
      try {
        find(chunk);
      } catch (error) {
        settle();
        dropRest(request);
        reject(error);
        return;
      }
      if (model !== undefined || length >= MAX_BYTES) give(false);
    };
    const onEnd = () => give(true);
    const onClose = () => {
      settle();
      resolve(undefined);
    };
    request.on('data', onData).on('end', onEnd).on('close', onClose);
  });
}

function found(finder: FieldFinder, chunk: Buffer): FormField[] {
  try {
    return finder.push(chunk);
  } catch (error) {
    throw error instanceof FormSyntaxError ? malformed(error.message) : error;
  }
}

function malformed(message: string): GatewayError {
  return new GatewayError('malformed_form', { message, param: 'model' });
}
