import type { ErrorRequestHandler, RequestHandler, Response } from 'express';
import type { Logger } from '../../common/logger.ts';
import { from, GatewayError } from '../errors.ts';
import { ownHeaders, recordOf } from '../observe/record.ts';

/** For a path that is known, with a method that it does not have. OPTIONS gets an empty answer. */
export function otherMethods(path: string, allow: string): RequestHandler {
  return function answerOtherMethod(request, response) {
    const record = recordOf(response);
    record.route = path;
    if (request.method !== 'OPTIONS') {
      throw new GatewayError('method_not_allowed', {
        message: `${path} does not take this method; it takes ${allow}`,
        headers: { allow },
      });
    }
    response.writeHead(204, ['allow', allow, ...ownHeaders(record)]).end();
  };
}

export function notFound(): RequestHandler {
  return function answerNotFound() {
    throw new GatewayError('not_found');
  };
}

/** The edge: whatever was thrown becomes an answer in OpenAI's shape. */
export function answerErrors(logger: Logger): ErrorRequestHandler {
  // Express tells an error handler by its four parameters.
  return function answerError(thrown: unknown, _request, response, _next) {
    const error = from(thrown);
    const { requestId } = recordOf(response);
    if (error.code === 'internal') logger.error({ request_id: requestId, err: thrown }, 'a request failed');
    if (response.headersSent) response.destroy();
    else sendError(response, error);
  };
}

function sendError(response: Response, error: GatewayError): void {
  const body = Buffer.from(JSON.stringify(error.body()));
  response
    .writeHead(error.status, [
      ...Object.entries(error.headers).flat(),
      'content-type',
      'application/json',
      'content-length',
      String(body.length),
      ...ownHeaders(recordOf(response)),
    ])
    .end(body);
}
