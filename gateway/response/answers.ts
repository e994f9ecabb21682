import type { Logger } from '../../common/logger.ts';
import { GatewayError } from '../errors.ts';
import { ownHeaders } from '../observe/record.ts';
import type { Handler, OnError } from '../request/exchange.ts';
import { formOf } from '../routes.ts';
import { sendJson } from './send-json.ts';

/** For a path that is known, with a method that it does not have. OPTIONS gets an empty answer. */
export function otherMethods(path: string, allow: string): Handler {
  return function answerOtherMethod({ request, response, record }) {
    record.route = path;
    if (request.method !== 'OPTIONS') {
      throw new GatewayError('method_not_allowed', {
        message: `${path} does not accept this method; it accepts ${allow}`,
        headers: { allow },
      });
    }
    response.writeHead(204, ['allow', allow, ...ownHeaders(record)]).end();
  };
}

export const answerNotFound: Handler = () => {
  throw new GatewayError('not_found');
};

/** The edge: whatever was thrown becomes an answer in the shape of the API. */
export function answerErrors(logger: Logger): OnError {
  return function answerError(exchange, thrown) {
    const { response, record } = exchange;
    const error = GatewayError.from(thrown);
    if (error.code === 'internal') logger.error({ request_id: record.requestId, err: thrown }, 'request failed');
    if (response.headersSent) response.destroy();
    else
      sendJson(
        exchange,
        error.status,
        JSON.stringify(error.bodyFor(formOf(exchange.path))),
        Object.entries(error.headers).flat(),
      );
  };
}
