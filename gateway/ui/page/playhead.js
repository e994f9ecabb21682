/**
 * Which moment of this page's requests is shown, in tokens generated. A tiny model thinks faster than anyone can look, so
 * by default it is shown at a pace; whatever has come can be looked at again.
 */
export class Playhead {
  #shown = 0;
  #known = 0;
  playing = true;
  /** Tokens a second; 0: as they come. */
  pace = 0;

  get shown() {
    return Math.floor(this.#shown);
  }

  get known() {
    return this.#known;
  }

  /** All that has come is shown. */
  get atEnd() {
    return this.#shown >= this.#known;
  }

  begin() {
    this.#shown = 0;
    this.#known = 0;
    this.playing = true;
  }

  /**
   * @param {number} known tokens that have come
   * @param {number} milliseconds since the last call
   */
  advance(known, milliseconds) {
    this.#known = known;
    if (!this.playing) return;
    this.#shown = this.pace === 0 ? known : Math.min(known, this.#shown + (this.pace * milliseconds) / 1000);
  }

  /** @param {number} tokens */
  jump(tokens) {
    this.playing = false;
    this.#shown = Math.min(tokens, this.#known);
  }

  /** Goes on, from the beginning when there is nothing left. */
  toggle() {
    if (this.playing && !this.atEnd) this.playing = false;
    else {
      if (this.atEnd) this.#shown = 0;
      this.playing = true;
    }
  }
}
