import type { RequestHandler } from 'express';
import { failureAnswer, stopAnswer } from '../attempts/failure.ts';
import { upstreamHeaders } from '../headers.ts';
import { isAllowed } from '../keys/access.ts';
import { ownHeaders, recordOf } from '../observe/record.ts';
import type { Inflight } from '../request/inflight.ts';
import type { Fleet } from './fleet.ts';
import { type ModelEntry, mergeModels, modelEntries } from './model-list.ts';
import { type OwnAnswer, ownGet } from './own-request.ts';

/** A backend that says nothing in this time is left out of the list. */
const LIST_MS = 5_000;

export interface ListModelsDeps {
  fleet: Fleet;
  inflight: Inflight;
}

/**
 * `/v1/models` of all backends as one list, of the models that the caller's key is for. A fleet of one without aliases
 * answers a key that is for all models itself, to the byte (`single`). When no backend gives a list, the answer of the
 * first that answered at all is passed on.
 */
export function listModels(single: RequestHandler, { fleet, inflight }: ListModelsDeps): RequestHandler {
  return async function answerModels(request, response, next) {
    const record = recordOf(response);
    if (!fleet.looksAtModels && record.key?.models === undefined) {
      await single(request, response, next);
      return;
    }
    record.route = '/v1/models';
    if (inflight.draining) throw stopAnswer('draining');
    record.stage = 'waiting';
    const keyed = record.key !== undefined;
    const headers = upstreamHeaders(request.rawHeaders, record.requestId, keyed);
    const own = keyed || request.headers.authorization === undefined;
    const answers = await Promise.all(
      fleet.all.map((backend) =>
        ownGet(backend, '/v1/models', LIST_MS, own ? [...headers, ...backend.credential()] : headers),
      ),
    );
    if (response.destroyed) return;
    const lists: ModelEntry[][] = [];
    for (const answer of answers) {
      const list = answer.kind === 'answered' && answer.status === 200 ? modelEntries(answer.body) : undefined;
      if (list !== undefined) lists.push(list);
    }
    const other = answers.find(
      (answer): answer is Extract<OwnAnswer, { kind: 'answered' }> => answer.kind === 'answered',
    );
    if (lists.length === 0 && other === undefined) throw failureAnswer('connect');
    const { status, text } =
      lists.length > 0 || other === undefined
        ? {
            status: 200,
            text: JSON.stringify(mergeModels(lists, fleet.aliases, (model) => isAllowed(record.key, model))),
          }
        : { status: other.status, text: other.body };
    const body = Buffer.from(text);
    response
      .writeHead(status, [
        'content-type',
        'application/json',
        'content-length',
        String(body.length),
        ...ownHeaders(record),
      ])
      .end(body);
  };
}
