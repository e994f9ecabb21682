import { failureAnswer, stopAnswer } from '../attempts/failure.ts';
import { upstreamHeaders } from '../headers.ts';
import { isAllowed } from '../keys/access.ts';
import type { Handler } from '../request/exchange.ts';
import type { Inflight } from '../request/inflight.ts';
import { sendJson } from '../response/send-json.ts';
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
export function listModels(single: Handler, { fleet, inflight }: ListModelsDeps): Handler {
  return async function answerModels(exchange) {
    const { request, response, record } = exchange;
    if (!fleet.looksAtModels && record.key?.models === undefined) return await single(exchange);
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
    if (lists.length === 0 && other !== undefined) {
      sendJson(exchange, other.status, other.body);
      return;
    }
    const list = mergeModels(lists, fleet.aliases, (model) => isAllowed(record.key, model));
    sendJson(exchange, 200, JSON.stringify(list));
  };
}
