import { GatewayError } from '../errors.ts';
import type { Exchange } from '../request/exchange.ts';
import type { UpstreamRequest } from '../request/upstream-request.ts';
import type { Route } from '../routes.ts';
import type { Backend } from './backend.ts';
import type { Fleet } from './fleet.ts';
import { ownGet } from './own-request.ts';
import type { Made, ResponseIds } from './response-ids.ts';

/** Says which backend must get a request; undefined: any may. Throws `response_not_found` or `responses_unavailable`. */
export type Stick = (route: Route, exchange: Exchange, sent: UpstreamRequest) => Promise<string | undefined>;

/** Nothing else can have been made by a backend, and nothing else is looked up. */
const RESPONSE_ID = /^[A-Za-z0-9._:-]{1,128}$/;
/** For a backend to say whether it has a response. */
const ASK_MS = 2_000;

/**
 * A response is where it was made: what asks for it, cancels it or goes on from it has to go there. One that is not
 * remembered (another gateway made it, this one was started again) is asked for at every backend. While keys are on it is
 * not there, since nobody knows whose it is; nor is that of another key.
 */
export function createStick(fleet: Fleet, ids: ResponseIds): Stick {
  const ask = async (id: string, sent: UpstreamRequest): Promise<Backend | undefined> => {
    const backends = [...fleet.all];
    const path = `/v1/responses/${encodeURIComponent(id)}`;
    const answers = await Promise.all(
      backends.map((backend) => ownGet(backend, path, ASK_MS, credentials(sent, backend))),
    );
    return backends.find((_, i) => {
      const answer = answers[i];
      return answer?.kind === 'answered' && answer.status === 200;
    });
  };

  const locate = async (id: string, made: Made | undefined, sent: UpstreamRequest): Promise<string | undefined> => {
    if (!RESPONSE_ID.test(id)) return undefined;
    if (made !== undefined && fleet.all.some(({ url }) => url === made.backend)) return made.backend;
    const found = await ask(id, sent);
    if (found !== undefined) ids.remember(id, { backend: found.url, key: made?.key });
    return found?.url;
  };

  return async function stick(route, { params, record: { key } }, sent) {
    const id = route.sticky === 'makes' ? sent.previousResponse : String(params['id']);
    // One backend has all there is, and says itself what it has not.
    const alone = fleet.all.length < 2;
    if (id === undefined || (alone && key === undefined)) return undefined;
    const known = RESPONSE_ID.test(id) ? await ids.find(id) : undefined;
    if (key !== undefined && known === 'unasked') {
      throw new GatewayError('responses_unavailable', { headers: { 'retry-after': '1' } });
    }
    const made = known === 'unasked' ? undefined : known;
    if (key !== undefined && made?.key !== key.id) throw notFound(id);
    if (alone) return undefined;
    const found = await locate(id, made, sent);
    if (found === undefined && route.sticky === 'finds') throw notFound(id);
    return found;
  };
}

/** As vLLM says it. */
function notFound(id: string): GatewayError {
  return new GatewayError('response_not_found', { message: `Response with id '${id.slice(0, 128)}' not found.` });
}

/** Those that the request itself brings the backend. */
function credentials(sent: UpstreamRequest, backend: Backend): string[] {
  const headers = backend.withCredential(sent.headers);
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [name, value] = [headers[i] as string, headers[i + 1] as string];
    if (name.toLowerCase() === 'authorization') kept.push(name, value);
  }
  return kept;
}
