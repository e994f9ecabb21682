import { call } from './api.js';
import { readEvents } from './events.js';
import { Frames } from './frames.js';
import { Transcript } from './transcript.js';

/**
 * One request of this page: its text, its life in the cache, and how it went.
 *
 * @typedef {{ profile?: string, budget_tokens?: number, mode?: string }} CacheOption
 * @typedef {{ role: string, content: string }[]} Messages
 */
export class Run {
  transcript = new Transcript();
  frames = new Frames();
  /** The gateway's id; empty until it has answered. */
  id = '';
  /** @type {'waiting' | 'running' | 'done' | 'stopped' | 'failed'} */
  state = 'waiting';
  error = '';
  #stop = new AbortController();

  /**
   * @param {{ title: string, model: string, messages: Messages, cache: CacheOption, maxTokens?: number }} request
   */
  constructor(request) {
    this.request = request;
  }

  get over() {
    return this.state !== 'waiting' && this.state !== 'running';
  }

  get answer() {
    return this.transcript.generatedText(0, this.transcript.generated, 'content').trim();
  }

  stop() {
    this.#stop.abort();
  }

  /** Resolves when the request is over, however it went: see `state` and `error`. */
  async go() {
    const { model, messages, cache, maxTokens } = this.request;
    const body = {
      model,
      messages,
      stream: true,
      temperature: 0,
      return_token_ids: true,
      ...(maxTokens === undefined ? {} : { max_tokens: maxTokens }),
      ...(Object.keys(cache).length === 0 ? {} : { crystal_kv: cache }),
    };
    try {
      const response = await call('v1/chat/completions', { body, signal: this.#stop.signal });
      this.id = response.headers.get('x-crystalkv-id') ?? '';
      this.state = 'running';
      await readEvents(response, (_event, data) => this.#take(data));
      this.state = this.error === '' ? 'done' : 'failed';
    } catch (error) {
      this.state = this.#stop.signal.aborted ? 'stopped' : 'failed';
      if (this.state === 'failed') this.error = error instanceof Error ? error.message : String(error);
    }
  }

  /** @param {string} data */
  #take(data) {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data);
    if (chunk.error !== undefined) {
      this.error = String(chunk.error.message ?? 'the stream ended with an error');
      return;
    }
    if (Array.isArray(chunk.prompt_token_ids)) void this.#namePrompt(chunk.prompt_token_ids.length);
    const choice = chunk.choices?.[0];
    if (choice === undefined) return;
    const { delta = {}, token_ids: ids } = choice;
    const reasoning = delta.reasoning ?? delta.reasoning_content ?? '';
    const content = delta.content ?? '';
    const count = Array.isArray(ids) ? ids.length : undefined;
    if (reasoning !== '' && content !== '') {
      this.transcript.add(reasoning, 'reasoning', count === undefined ? undefined : count - 1);
      this.transcript.add(content, 'content', count === undefined ? undefined : 1);
    } else if (content !== '') this.transcript.add(content, 'content', count);
    else if (reasoning !== '' || count !== undefined) this.transcript.add(reasoning, 'reasoning', count);
  }

  /**
   * The prompt's tokens as text, for the map; without them it shows none.
   *
   * @param {number} count
   */
  async #namePrompt(count) {
    this.transcript.setPrompt(count, undefined);
    const { model, messages } = this.request;
    try {
      const response = await call('tokenize', { body: { model, messages, return_token_strs: true } });
      const { token_strs: texts } = await response.json();
      if (Array.isArray(texts)) this.transcript.setPrompt(count, texts);
    } catch {
      // Not every server has this path.
    }
  }
}
