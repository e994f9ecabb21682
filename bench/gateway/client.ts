import { type Dispatcher, Pool } from 'undici';

export interface Target {
  /** The root of the server. */
  url: string;
  headers: Readonly<Record<string, string>>;
}

/** Sends chat completions to one server over kept connections. */
export interface Client {
  /**
   * Resolves when the response has ended, with its status; rejects when it broke. `onData` gets pieces of the body as
   * they come.
   */
  send(body: string, onData?: (piece: string) => void): Promise<number>;
  close(): Promise<void>;
}

const PATH = '/v1/chat/completions';
const TIMEOUT_MS = 30_000;

/** At most `connections` at a time; more requests wait. */
export function createClient({ url, headers }: Target, connections: number): Client {
  const pool = new Pool(url, { connections, pipelining: 1, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  const allHeaders = { 'content-type': 'application/json', ...headers };
  return {
    send: (body, onData) =>
      new Promise((resolve, reject) => {
        let status = 0;
        const handler: Dispatcher.DispatchHandler = {
          onRequestStart() {},
          onResponseStart(_, statusCode) {
            status = statusCode;
          },
          onResponseData(_, chunk) {
            onData?.(chunk.toString('latin1'));
          },
          onResponseEnd() {
            resolve(status);
          },
          onResponseError(_, error) {
            reject(error);
          },
        };
        pool.dispatch({ method: 'POST', path: PATH, headers: allHeaders, body }, handler);
      }),
    close: () => pool.destroy(),
  };
}
