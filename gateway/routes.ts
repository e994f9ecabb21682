/** How an error is told in the middle of a stream: each API has its own form. */
export type StreamForm = 'chat' | 'responses' | 'messages';

/** A path that is passed on to a backend. */
export interface Route {
  method: 'GET' | 'POST';
  /** In Express's notation; also the metric label. */
  path: string;
  /**
   * `raw`: the body is not looked at. `option`: the `crystal_kv` option and `crystalkv_*` keys are taken out.
   * `generation`: and the gateway's own keys are put in. `upload`: not looked at, and sent on while it arrives.
   */
  body: 'raw' | 'option' | 'generation' | 'upload';
  form: StreamForm;
  /** `makes`: the response stays on its backend. `finds`: the path's `:id` is of such a response, which only that has. */
  sticky?: 'makes' | 'finds';
  /** Its answer takes no tokens of the model. */
  free?: true;
}

/**
 * The allow-list. Whatever is not here is a 404: servers have development paths (sleep, reset caches, load adapters)
 * that must not be reachable from outside.
 */
export const ROUTES: readonly Route[] = [
  { method: 'POST', path: '/v1/chat/completions', body: 'generation', form: 'chat' },
  { method: 'POST', path: '/v1/chat/completions/batch', body: 'generation', form: 'chat' },
  { method: 'POST', path: '/v1/completions', body: 'generation', form: 'chat' },
  { method: 'POST', path: '/v1/responses', body: 'generation', form: 'responses', sticky: 'makes' },
  { method: 'GET', path: '/v1/responses/:id', body: 'raw', form: 'responses', sticky: 'finds' },
  { method: 'POST', path: '/v1/responses/:id/cancel', body: 'raw', form: 'responses', sticky: 'finds' },
  { method: 'POST', path: '/v1/messages', body: 'generation', form: 'messages' },
  { method: 'POST', path: '/v1/messages/count_tokens', body: 'option', form: 'messages', free: true },
  { method: 'GET', path: '/v1/models', body: 'raw', form: 'chat' },
  { method: 'GET', path: '/v1/models/:id', body: 'raw', form: 'chat' },
  { method: 'POST', path: '/cohere/v2/chat', body: 'generation', form: 'chat' },
  { method: 'POST', path: '/generative_scoring', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/decisions', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/systemone', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/chat/completions/render', body: 'option', form: 'chat', free: true },
  { method: 'POST', path: '/v1/completions/render', body: 'option', form: 'chat', free: true },
  { method: 'POST', path: '/v1/responses/render', body: 'option', form: 'chat', free: true },
  { method: 'POST', path: '/v1/messages/render', body: 'option', form: 'messages', free: true },
  { method: 'POST', path: '/cohere/v2/chat/render', body: 'option', form: 'chat', free: true },
  { method: 'POST', path: '/v1/chat/completions/derender', body: 'option', form: 'chat', free: true },
  { method: 'POST', path: '/v1/completions/derender', body: 'option', form: 'chat', free: true },
  { method: 'POST', path: '/v2/embed', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/embeddings', body: 'option', form: 'chat' },
  { method: 'POST', path: '/pooling', body: 'option', form: 'chat' },
  { method: 'POST', path: '/classify', body: 'option', form: 'chat' },
  { method: 'POST', path: '/score', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/score', body: 'option', form: 'chat' },
  { method: 'POST', path: '/rerank', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/rerank', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v2/rerank', body: 'option', form: 'chat' },
  { method: 'POST', path: '/v1/audio/transcriptions', body: 'upload', form: 'chat' },
  { method: 'POST', path: '/v1/audio/translations', body: 'upload', form: 'chat' },
  { method: 'POST', path: '/tokenize', body: 'raw', form: 'chat' },
  { method: 'POST', path: '/detokenize', body: 'raw', form: 'chat' },
  { method: 'GET', path: '/version', body: 'raw', form: 'chat' },
  { method: 'GET', path: '/ping', body: 'raw', form: 'chat' },
  { method: 'POST', path: '/ping', body: 'raw', form: 'chat' },
];

/** How errors look at a path, known or not. */
export function formOf(path: string): StreamForm {
  return path === '/v1/messages' || path.startsWith('/v1/messages/') ? 'messages' : 'chat';
}

/** The value of an `Allow` header. */
export function allowed(path: string): string {
  const methods = ROUTES.filter((route) => route.path === path).map(({ method }) => method);
  // The gateway's own paths are read only.
  if (methods.length === 0) methods.push('GET');
  return [...methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])), 'OPTIONS'].join(', ');
}
