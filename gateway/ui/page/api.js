import { readEvents } from './events.js';

const KEY = 'crystal-kv-api-key';
const RETRY_MS = { first: 500, max: 5_000 };

/** An answer that is no success. `status` 401: the gateway wants a key, or another one. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The key lives as long as the tab. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  /** @param {string} key */
  set: (key) => sessionStorage.setItem(KEY, key),
};

/**
 * A path of the gateway; the page may be served below a prefix, so paths are relative to it. Throws ApiError.
 *
 * @param {string} path without a leading slash
 * @param {{ body?: unknown, signal?: AbortSignal }} [options]
 */
export async function call(path, { body, signal } = {}) {
  const key = apiKey.get();
  const response = await fetch(path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: {
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(key === '' ? {} : { authorization: `Bearer ${key}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (response.ok) return response;
  const text = await response.text();
  let message = text.slice(0, 300);
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not the gateway's own shape: the text itself says most.
  }
  throw new ApiError(response.status, `${response.status}: ${message}`);
}

/**
 * The states of the policy services, for as long as the page lives; begins again after a loss.
 *
 * @param {{ onState: (state: any) => void, onLost: (source: number | undefined) => void, onRefused: (error: ApiError) => void }} on
 */
export async function followStates({ onState, onLost, onRefused }) {
  let wait = RETRY_MS.first;
  for (;;) {
    try {
      const response = await call('ui/api/events');
      await readEvents(response, (event, data) => {
        wait = RETRY_MS.first;
        if (event === 'state') onState(JSON.parse(data));
        if (event === 'lost') onLost(JSON.parse(data).source);
      });
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        onRefused(error);
        return;
      }
    }
    onLost(undefined);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(RETRY_MS.max, wait * 2);
  }
}
