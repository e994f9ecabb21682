import { after } from 'node:test';
import { type Listening, listen } from '../../common/http.ts';
import { createLogger } from '../../common/logger.ts';
import { createEngineHttp, type EngineHttp, type EngineHttpOptions } from '../../engine/http/app.ts';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import type { ScriptedEngine } from './scripted-engine.ts';
import { writeWordTokenizer } from './tokenizer-folders.ts';

export const words = loadTokenizer(writeWordTokenizer());

export interface Served extends Listening {
  http: EngineHttp;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

/** Serves an engine under the model name `mini` on a free port of the loopback interface, until the tests have ended. */
export async function serve(engine: ScriptedEngine, options: Partial<EngineHttpOptions> = {}): Promise<Served> {
  const logger = createLogger('engine', 'silent');
  const http = createEngineHttp({ engine, tokenizer: words, modelName: 'mini', version: '1.2.3', logger, ...options });
  const listening = await listen(http.handler, '127.0.0.1', 0);
  after(async () => {
    await http.close();
    listening.server.closeAllConnections();
    await listening.close();
  });
  return {
    ...listening,
    http,
    post: (path, body, headers = {}) =>
      fetch(`${listening.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
  };
}

/** The data of the events of a stream, parsed; `[DONE]` stays a string. */
export async function readEvents(response: Response): Promise<unknown[]> {
  const text = await response.text();
  return text
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => {
      const data = event.slice('data: '.length);
      return data === '[DONE]' ? data : JSON.parse(data);
    });
}

/** Polls until the condition holds; rejects after five seconds. */
export async function eventually(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not happen within 5 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
