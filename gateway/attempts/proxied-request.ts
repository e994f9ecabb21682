import type { ServerResponse } from 'node:http';
import type { RequestRecord } from '../observe/record.ts';
import type { UpstreamRequest } from '../request/upstream-request.ts';
import type { Downstream } from '../response/downstream.ts';
import type { Route } from '../routes.ts';

/** A request that is ready to be sent to a backend, and the way back to its client. */
export interface ProxiedRequest {
  route: Route;
  record: RequestRecord;
  sent: UpstreamRequest;
  response: ServerResponse;
  downstream: Downstream;
  /** When its total time ends, in `performance.now()`. */
  deadline: number;
  /** The URL of the only backend that can serve it; undefined: any that serves its model. */
  only: string | undefined;
}
