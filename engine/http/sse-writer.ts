import type { ServerResponse } from 'node:http';

/**
 * Server-sent events on a response. After a write that filled the socket's buffer, `writable` is false until the buffer
 * has drained; writing meanwhile costs memory.
 */
export class SseWriter {
  readonly #response: ServerResponse;
  readonly #named: boolean;
  #blocked = false;

  /**
   * @param onDrain called when `writable` has become true again
   * @param named events are named by their `type`, and the end is no event
   */
  constructor(response: ServerResponse, onDrain: () => void, named = false) {
    this.#response = response;
    this.#named = named;
    response.on('drain', () => {
      this.#blocked = false;
      onDrain();
    });
  }

  get started(): boolean {
    return this.#response.headersSent;
  }

  get writable(): boolean {
    return !this.#blocked && !this.#response.destroyed;
  }

  send(data: object): void {
    const name = this.#named ? `event: ${(data as { type?: string }).type}\n` : '';
    this.#write(`${name}data: ${JSON.stringify(data)}\n\n`);
  }

  /** Ends the stream, after success or failure. */
  done(): void {
    if (!this.#named) this.#write('data: [DONE]\n\n');
    this.#response.end();
  }

  #write(text: string): void {
    if (!this.started) {
      this.#response.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache',
        'x-accel-buffering': 'no',
      });
    }
    this.#blocked = !this.#response.write(text);
  }
}
