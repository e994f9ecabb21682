import type { IncomingHttpHeaders } from 'node:http';

/** What a span says of a request when it has ended. */
export interface SpanEnd {
  route: string;
  /** 499: the client left first. */
  status: number;
  outcome: string;
  failed: boolean;
  model: string | undefined;
  backend: string | undefined;
  crystalKvId: string | undefined;
  tokens: { input: number; output: number };
  /** In `performance.now()`; undefined: none came. */
  firstByteAt: number | undefined;
}

/** The span of one request, from its head to the end of its response. */
export interface RequestSpan {
  /** For the backend in the place of the client's headers of these names; undefined: only taken away. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  end(end: SpanEnd): void;
}

/** Makes spans. They hold what the request's line in the log holds, and nothing of a body. */
export interface Tracing {
  begin(method: string, requestId: string, headers: IncomingHttpHeaders): RequestSpan;
  /** Sends what is left, for 2 s at most. Never rejects. */
  close(): Promise<void>;
}
