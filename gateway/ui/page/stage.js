/** @import { RowContent } from './map.js' */
/** @import { Readable } from './reading.js' */
/** @import { Told } from './verdict.js' */
import { byId, setText } from './dom.js';
import { Frames } from './frames.js';
import { Playhead } from './playhead.js';
import { Reading } from './reading.js';
import { verdict } from './verdict.js';

/**
 * A request that the page shows with its text: its own, or a recorded one.
 *
 * @typedef {Readable & Omit<Told, 'frame'> & { id: string, frames: Frames, stop(): void }} Shown
 */

/** The requests that are read side by side, at the moment that the playhead shows. */
export class Stage {
  /** @type {{ run: Shown, reading: Reading }[]} */
  entries = [];
  playhead = new Playhead();
  /** It was recorded elsewhere. */
  recorded = false;
  bytesPerBlock = 0;
  #expected = /** @type {string | undefined} */ (undefined);
  #announced = true;

  /**
   * @param {Shown[]} runs the full cache first when there are two
   * @param {{ expected: string | undefined, recorded: boolean }} facts
   */
  put(runs, { expected, recorded }) {
    this.recorded = recorded;
    this.#expected = expected;
    this.#announced = recorded;
    this.entries = runs.map((run, index) => ({ run, reading: new Reading(run, expected, index === runs.length - 1) }));
    // The managed one first: it is what the page is about.
    byId('readings').replaceChildren(...this.entries.toReversed().map(({ reading }) => reading.element));
    setText(byId('verdict'), '');
    this.playhead.begin();
  }

  /** The request whose cache is managed. */
  get managed() {
    return this.entries.at(-1)?.run;
  }

  /** Every request has ended, and all of it is shown. */
  get over() {
    return this.entries.every(({ run }) => run.over) && this.playhead.atEnd;
  }

  /** Tokens that the longest of the requests has written. */
  get generated() {
    return Math.max(0, ...this.entries.map(({ run }) => run.transcript.generated));
  }

  /**
   * The state of a request's cache at the moment that is shown; the last one when all of it is shown.
   *
   * @param {Shown} run
   */
  frameOf(run) {
    return run.over && this.playhead.shown >= run.transcript.generated
      ? run.frames.last
      : run.frames.at(this.playhead.shown);
  }

  /** @returns {RowContent[]} */
  get rows() {
    return this.entries.flatMap(({ run }) => {
      const frame = this.frameOf(run);
      if (frame === undefined) return [];
      const { title } = run.request;
      return [{ key: frame.key, title, frame, transcript: run.transcript, over: this.over }];
    });
  }

  drawTexts() {
    for (const { run, reading } of this.entries) reading.update(this.playhead.shown, this.frameOf(run));
  }

  drawStrips() {
    const total = this.generated;
    for (const { run, reading } of this.entries) reading.drawStrip(this.playhead.shown, this.frameOf(run), total);
  }

  /** The sentence that matters, from what is shown; the last one from the last state. */
  drawVerdict() {
    if (this.entries.length === 0) return;
    const { over } = this;
    const told = this.entries.map(({ run }) => {
      const { state, error, answer } = run;
      return { ...{ state, error, answer }, frame: this.frameOf(run) };
    });
    const { headline, detail, tone } = verdict(told, {
      over,
      expected: this.#expected,
      bytesPerBlock: this.bytesPerBlock,
    });
    setText(byId('headline'), headline);
    setText(byId('detail'), detail);
    byId('headline').dataset['tone'] = tone;
    if (over && !this.#announced) {
      this.#announced = true;
      setText(byId('verdict'), `${headline}. ${detail}`);
    }
  }

  drawPlay() {
    const { playhead } = this;
    byId('play').hidden = this.entries.length === 0;
    const time = byId('time', HTMLInputElement);
    time.max = String(playhead.known);
    if (document.activeElement !== time || playhead.playing) time.value = String(playhead.shown);
    setText(byId('time-text'), `${playhead.shown} tokens`);
    setText(byId('play-button'), this.over ? 'Replay' : playhead.playing ? 'Pause' : 'Play');
  }
}
