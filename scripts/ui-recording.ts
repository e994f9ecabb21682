/** Records a run for the live page, to be played until a visitor starts one; see `--help`. */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { GATEWAY_OPTION, presetOf } from '../bench/page-preset.ts';
import { readEvents } from '../gateway/ui/page/events.js';
import { runCommandLine, UsageError } from './command-line.ts';

const FILE = fileURLToPath(new URL('../gateway/ui/page/recording.json', import.meta.url));
/** States of each request that are kept, the last one among them. */
const FRAMES = 48;
const TAIL_MS = 1_500;

interface Recorded {
  title: string;
  id: string;
  promptTokens: number;
  reasoning: string[];
  content: string[];
  frames: Frame[];
}

interface Frame extends Record<string, unknown> {
  id: string;
  tokens: number;
  ended: boolean;
  held?: { from: number; shares: string; groups: string };
}

await runCommandLine({
  name: 'ui-recording',
  about: `Runs the English model's preselected example of the live page on a system that runs (make run MODEL=english), with the
preselected policy beside the full cache, and writes what the page would have seen of it to gateway/ui/page/recording.json.
Fails, and writes nothing, when the two answers differ.`,
  options: {
    url: GATEWAY_OPTION,
  },
  async run({ url }) {
    const { first, profile, examples } = presetOf('english');
    const example = examples[first]!;
    const { budgetTokens } = example;
    const stop = new AbortController();
    const runs = [
      { title: 'everything kept', cache: { mode: 'off' } },
      { title: `${profile}, ${budgetTokens} tokens`, cache: { profile, budget_tokens: budgetTokens } },
    ].map(({ title, cache }) => ({
      cache,
      recorded: { title, id: '', promptTokens: 0, reasoning: [], content: [], frames: [] } as Recorded,
    }));
    let facts: { blockSize: number; bytesPerBlock: number } | undefined;
    const states = await fetch(`${url}/ui/api/events`, { signal: stop.signal });
    if (!states.ok) throw new UsageError(`${url} has no live page: ${states.status}`);
    const watching = readEvents(states, (event: string, data: string) => {
      if (event !== 'state') return;
      const { engines, requests } = JSON.parse(data) as {
        engines: { blockSize: number; bytesPerBlock: number }[];
        requests: Frame[];
      };
      facts ??= engines[0];
      for (const { recorded } of runs)
        recorded.frames.push(...requests.filter(({ id }) => id === recorded.id && id !== ''));
    }).catch(() => {});
    await Promise.all(runs.map(({ cache, recorded }) => write(url, example.messages, cache, recorded)));
    await new Promise((resolve) => setTimeout(resolve, TAIL_MS));
    stop.abort();
    await watching;
    const [full, managed] = runs.map(({ recorded }) => recorded.content.join('').trim());
    if (full !== managed || facts === undefined) throw new Error(`not the same answers: ${full} and ${managed}`);
    const { blockSize, bytesPerBlock } = facts;
    const recording = {
      source: `A recording: SmolLM2-135M reasons about a ${example.title.toLowerCase()}.`,
      ...{ question: example.messages.at(-1)?.content, expected: example.answer, blockSize, bytesPerBlock },
      runs: runs.map(({ recorded: { id: _, frames, ...recorded } }) => ({ ...recorded, frames: thinned(frames) })),
    };
    writeFileSync(FILE, `${JSON.stringify(recording)}\n`);
    process.stdout.write(`${FILE}: ${managed}\n`);
  },
});

async function write(url: string, messages: object, cache: object, recorded: Recorded): Promise<void> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      ...{ model: 'english', messages, stream: true, temperature: 0, return_token_ids: true, crystal_kv: cache },
    }),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  recorded.id = response.headers.get('x-crystalkv-id') ?? '';
  await readEvents(response, (_event: string, data: string) => {
    if (data === '[DONE]') return;
    const { prompt_token_ids: prompt, choices } = JSON.parse(data);
    if (Array.isArray(prompt)) recorded.promptTokens = prompt.length;
    const choice = choices?.[0];
    if (!Array.isArray(choice?.token_ids) || choice.token_ids.length === 0) return;
    const { reasoning = '', content = '' } = choice.delta ?? {};
    if (content === '') recorded.reasoning.push(reasoning);
    else recorded.content.push(content);
  });
}

/** Some of the states, evenly; with the bits of heads in the last one only, and without what the page does not show of them. */
function thinned(frames: readonly Frame[]): object[] {
  const every = Math.max(1, Math.ceil(frames.length / FRAMES));
  return frames
    .filter((_, index) => index === frames.length - 1 || index % every === 0)
    .map((frame, index, all) => {
      const { tokens, promptTokens, handle, phase, profile, policy, mode, blocks, resident, evicted, peak, keep } =
        frame;
      const { from, to, ended, held } = frame;
      const last = index === all.length - 1;
      return {
        ...{ tokens, promptTokens, handle, phase, profile, policy, mode, blocks, resident, evicted, peak, keep },
        ...{ from, to, ended },
        ...(held === undefined ? {} : { held: last ? held : { ...held, groups: '' } }),
      };
    });
}
