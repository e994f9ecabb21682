import { fileURLToPath } from 'node:url';
import { makeStory, STOP_THINKING } from '../model/english/story.ts';
import type { Message } from '../model/program.ts';
import { makeProgram } from '../model/task.ts';
import { outputOf, startChild } from './child.ts';
import { OFFERED_PROGRAMS, OFFERED_STORIES } from './first-asked.ts';

const [PROGRAM] = OFFERED_PROGRAMS;
const [STORY] = OFFERED_STORIES;
const MAKE_FOLDER = fileURLToPath(new URL('../model/english/make-folder.ts', import.meta.url));

/** A model that the engine can be started with. */
export interface RunModel {
  /** Settings of the engine. Those of the environment win. */
  readonly settings: Readonly<Record<string, string>>;
  /** Fetches what it needs, with progress on standard error, and returns its folder; undefined: as configured. */
  folder(signal: AbortSignal): Promise<string | undefined>;
  /** What to ask it first. */
  readonly task: string;
  readonly messages: readonly Message[];
  /** A budget that makes it forget something of that. */
  readonly budgetTokens: number;
}

export const RUN_MODELS = {
  'crystal-mini': {
    settings: {},
    folder: async () => undefined,
    task: 'run a small program',
    messages: makeProgram(PROGRAM.seed, PROGRAM.lines, { form: PROGRAM.form }).messages,
    budgetTokens: PROGRAM.budgetTokens,
  },
  english: {
    settings: {
      CRYSTALKV_ENGINE_SERVED_MODEL_NAME: 'english',
      CRYSTALKV_ENGINE_WEIGHTS: 'int8',
      // a token takes 46 KB: 380 MB for eight long thoughts
      CRYSTALKV_ENGINE_POOL_BLOCKS: '512',
      CRYSTALKV_ENGINE_SEGMENT_MARKERS: '["\\n"]',
      CRYSTALKV_ENGINE_PROBE_SUFFIX: STOP_THINKING,
    },
    folder: makeEnglish,
    task: 'work through a story',
    messages: makeStory(STORY.seed, STORY.people).messages,
    budgetTokens: STORY.budgetTokens,
  },
} as const satisfies Record<string, RunModel>;

export type RunModelName = keyof typeof RUN_MODELS;
export const RUN_MODEL_NAMES = Object.keys(RUN_MODELS) as RunModelName[];

/** In a process of its own, which can be stopped while it fetches. Rejects with what it said last. */
async function makeEnglish(signal: AbortSignal): Promise<string> {
  const child = await startChild([process.execPath, MAKE_FOLDER], { stdio: ['ignore', 'pipe', 'inherit'] });
  const output = outputOf(child);
  const stop = () => void child.stop();
  signal.addEventListener('abort', stop, { once: true });
  const { code } = await child.closed;
  signal.removeEventListener('abort', stop);
  signal.throwIfAborted();
  if (code !== 0) throw new Error('nothing was started: the English model is not there, see above');
  return output.printed.trim();
}
