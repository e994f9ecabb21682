import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Listening, listen } from '../../common/http.ts';

const FOLDER = fileURLToPath(new URL('./recorded/', import.meta.url));
/** So many times the first recording is served, and then the second: a counter has to be seen before it grows. */
const FIRST = 3;

/** What a real vLLM, its plugin, and a plugin that refuses have exported: see recorded/README.md. */
const RECORDINGS: Readonly<Record<string, readonly string[]>> = {
  '/vllm': ['vllm-1.prom', 'vllm-2.prom'],
  '/vllm-plugin': ['plugin-1.prom', 'plugin-2.prom'],
  '/vllm-plugin-refused': ['plugin-refused.prom'],
};

export const RECORDED_JOBS = Object.keys(RECORDINGS).map((path) => path.slice(1));

export function startReplay(): Promise<Listening> {
  const served = new Map<string, number>();
  return listen(
    (request, response) => {
      const path = request.url ?? '';
      const recordings = RECORDINGS[path] ?? [];
      const times = served.get(path) ?? 0;
      served.set(path, times + 1);
      const file = recordings[times < FIRST ? 0 : recordings.length - 1];
      if (file === undefined) response.writeHead(404).end();
      else {
        response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4' }).end(readFileSync(`${FOLDER}${file}`));
      }
    },
    '127.0.0.1',
    0,
  );
}
