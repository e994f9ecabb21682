import { Frames, frameOf } from './frames.js';
import { Transcript } from './transcript.js';

/** What is not recorded of a request. */
const UNTOLD = {
  engineId: '',
  id: '',
  choice: 0,
  values: [],
  probe: [],
  probes: 0,
  probeTokens: 0,
  hits: [],
  lastHit: [],
  cold: false,
};

/** Tokens a second at which a recording is shown: about as fast as one can follow. */
export const RECORDING_PACE = 45;

/** A request that ran elsewhere, to be looked at like one of this page; `scripts/ui-recording.ts` writes it. */
export class RecordedRun {
  transcript = new Transcript();
  frames = new Frames();
  id = '';
  /** @type {'done'} */
  state = 'done';
  error = '';
  over = true;

  /** @param {{ title: string, promptTokens: number, reasoning: string[], content: string[], frames: any[], blockSize: number }} recorded */
  constructor({ title, promptTokens, reasoning, content, frames, blockSize }) {
    this.request = { title };
    this.transcript.setPrompt(promptTokens, undefined);
    for (const text of reasoning) this.transcript.add(text, 'reasoning', 1);
    for (const text of content) this.transcript.add(text, 'content', 1);
    for (const frame of frames) this.frames.add(frameOf({ ...UNTOLD, ...frame }, -1, blockSize));
  }

  get answer() {
    return this.transcript.generatedText(0, this.transcript.generated, 'content').trim();
  }

  /** It has ended already. */
  stop() {}
}

/** The recording that comes with the page. */
export async function loadRecording() {
  const { source, expected, bytesPerBlock, blockSize, runs } = await (await fetch('ui/recording.json')).json();
  return {
    /** @type {string} what was recorded */
    source,
    /** @type {string} */
    expected,
    /** @type {number} */
    bytesPerBlock,
    runs: runs.map((/** @type {any} */ run) => new RecordedRun({ ...run, blockSize })),
  };
}
