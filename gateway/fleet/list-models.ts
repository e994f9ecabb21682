import { within } from '../../common/time.ts';
import { failureAnswer, stopAnswer } from '../attempts/failure.ts';
import { upstreamHeaders } from '../headers.ts';
import { isAllowed } from '../keys/access.ts';
import type { Handler } from '../request/exchange.ts';
import type { Inflight } from '../request/inflight.ts';
import { sendJson } from '../response/send-json.ts';
import type { Backend } from './backend.ts';
import type { Fleet } from './fleet.ts';
import { type ModelEntry, mergeModels, modelEntries } from './model-list.ts';
import { type OwnAnswer, ownGet } from './own-request.ts';

/** A backend that says nothing in this time is left out of the list. */
const LIST_MS = 5_000;
/** A backend that takes longer is in the list with what it said before, or is left out if another has answered. */
const PATIENCE_MS = 500;

export interface ListModelsDeps {
  fleet: Fleet;
  inflight: Inflight;
}

/** What a backend said now; undefined: nothing yet. */
interface Asked {
  readonly backend: Backend;
  answer: OwnAnswer | undefined;
  readonly done: Promise<void>;
}

/**
 * `/v1/models` of all backends as one list, of the models that the caller's key is for. A fleet of one without aliases
 * answers a key that is for all models itself, to the byte (`single`), unless it hangs. A backend that hangs holds up nobody for long. When
 * no backend gives a list, the answer of the first that answered at all is passed on.
 */
export function listModels(single: Handler, { fleet, inflight }: ListModelsDeps): Handler {
  return async function answerModels(exchange) {
    const { request, response, record } = exchange;
    record.route = '/v1/models';
    if (inflight.draining) throw stopAnswer('draining');
    record.stage = 'waiting';
    if (!fleet.looksAtModels && record.key?.models === undefined) {
      const asked = fleet.all.map((backend) => ask(backend));
      const all = Promise.all(asked.map(({ done }) => done));
      await within(all, PATIENCE_MS);
      if (listsOf(asked).length === 0) await within(all, LIST_MS - 2 * PATIENCE_MS);
      if (response.destroyed) return;
      const lists = listsOf(asked);
      // It is there: its own answer is passed on, to the byte.
      if (asked.length === 0 || asked.some(({ answer }) => answer !== undefined)) return await single(exchange);
      if (lists.length === 0) throw failureAnswer('first_byte_timeout');
      sendJson(exchange, 200, JSON.stringify(mergeModels(lists, fleet.aliases, () => true)));
      return;
    }
    const keyed = record.key !== undefined;
    const headers = upstreamHeaders(request.rawHeaders, record.requestId, keyed);
    const asked = fleet.all.map((backend) => ask(backend, backend.withCredential(headers)));
    const all = Promise.all(asked.map(({ done }) => done));
    await within(all, PATIENCE_MS);
    if (listsOf(asked).length === 0) {
      const first = Promise.any(asked.map((one) => one.done.then(() => listOf(one) ?? Promise.reject())));
      await within(Promise.race([first.catch(() => all), all]), LIST_MS);
    }
    if (response.destroyed) return;
    const lists = listsOf(asked);
    const other = asked.map(({ answer }) => answer).find((answer) => answer?.kind === 'answered');
    if (lists.length === 0 && other === undefined) throw failureAnswer('connect');
    if (lists.length === 0 && other !== undefined) {
      sendJson(exchange, other.status, other.body);
      return;
    }
    const list = mergeModels(lists, fleet.aliases, (model) => isAllowed(record.key, model));
    sendJson(exchange, 200, JSON.stringify(list));
  };
}

function ask(backend: Backend, headers?: string[]): Asked {
  const asked = { backend, answer: undefined as OwnAnswer | undefined };
  const done = ownGet(backend, '/v1/models', LIST_MS, headers).then((answer) => {
    asked.answer = answer;
  });
  return Object.assign(asked, { done });
}

function listsOf(asked: readonly Asked[]): (readonly ModelEntry[])[] {
  return asked.map(listOf).filter((list) => list !== undefined);
}

/** What a backend says; of one that has said nothing yet, what it said before. */
function listOf({ backend, answer }: Asked): readonly ModelEntry[] | undefined {
  if (answer === undefined) return backend.listed;
  const list = answer.kind === 'answered' && answer.status === 200 ? modelEntries(answer.body) : undefined;
  if (list !== undefined) backend.listed = list;
  return list;
}
