import type { ServerResponse } from 'node:http';

/**
 * Server-sent events on a response. After a write that filled the socket's buffer, `writable` is false until the buffer
 * has drained; writing meanwhile costs memory.
 */
export class SseWriter {
  readonly #response: ServerResponse;
  #blocked = false;

  /** @param onDrain called when `writable` has become true again */
  constructor(response: ServerResponse, onDrain: () => void) {
    this.#response = response;
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
    this.#write(`data: ${JSON.stringify(data)}\n\n`);
  }

  /** Ends the stream, after success or failure. */
  done(): void {
    this.#write('data: [DONE]\n\n');
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
