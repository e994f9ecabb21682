/** @import { Frame } from './frames.js' */
/** @import { Transcript } from './transcript.js' */
import { blockFacts, cellsOf, describe } from './cells.js';
import { element, setText } from './dom.js';

/** Blocks of one request that are drawn: the newest. */
const MAX_CELLS = 1_024;
/** The protocol's number of the mode in which nothing is evicted. */
const OFF = 3;
const KIND_NAMES = { prompt: 'question', kept: 'kept', newest: 'newest', hole: 'given back' };

/**
 * @typedef {object} RowContent
 * @property {string} key
 * @property {string} title
 * @property {Frame} frame
 * @property {Transcript | undefined} transcript of the page's own requests
 * @property {boolean} over
 */

/**
 * @typedef {{ frame: Frame, over: boolean, answerStart: number | undefined, words: boolean }} Shown
 */

/**
 * The crystal map: a row for each request, a cell for each block. `onLook` is told which block is looked at by pointer or
 * keyboard, and undefined when none is.
 */
export class CrystalMap {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #place;
  #onLook;

  /**
   * @param {HTMLElement} place
   * @param {(row: RowContent | undefined, block: number) => void} onLook
   */
  constructor(place, onLook) {
    this.#place = place;
    this.#onLook = onLook;
  }

  /** @param {RowContent[]} contents in the order from top to bottom */
  show(contents) {
    const wanted = new Set(contents.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    for (const [index, content] of contents.entries()) {
      let row = this.#rows.get(content.key);
      if (row === undefined) {
        row = new Row(content, this.#onLook, (from, block, step) => this.#moveBetween(from, block, step));
        this.#rows.set(content.key, row);
      }
      row.update(content);
      if (this.#place.children[index] !== row.element) {
        this.#place.insertBefore(row.element, this.#place.children[index] ?? null);
      }
    }
  }

  /**
   * @param {Row} from
   * @param {number} block
   * @param {number} step
   */
  #moveBetween(from, block, step) {
    const rows = [...this.#rows.values()].sort((a, b) => (a.element.compareDocumentPosition(b.element) & 4 ? -1 : 1));
    rows[rows.indexOf(from) + step]?.focus(block);
  }
}

class Row {
  element;
  #title = element('h3');
  #facts = element('p', { class: 'row-facts' });
  #cells = element('div', { role: 'row', class: 'cells' });
  #grid;
  #words = element('p');
  #wordsBox;
  /** @type {HTMLElement[]} */
  #spans = [];
  /** @type {string[]} what each cell shows now */
  #drawn = [];
  /** First block that is drawn. */
  #first = 0;
  #current = 0;
  #content;
  /** @type {Shown | undefined} what was drawn last */
  #shown;
  #onLook;
  #onMove;

  /**
   * @param {RowContent} content
   * @param {(row: RowContent | undefined, block: number) => void} onLook
   * @param {(from: Row, block: number, step: number) => void} onMove
   */
  constructor(content, onLook, onMove) {
    this.#content = content;
    this.#onLook = onLook;
    this.#onMove = onMove;
    this.#grid = element('div', { role: 'grid', 'aria-describedby': 'map-keys', class: 'grid' }, this.#cells);
    this.#wordsBox = element('details', { class: 'words' }, element('summary', {}, 'This row in words'), this.#words);
    const head = element('div', { class: 'row-head' }, this.#title, this.#facts);
    this.element = element('section', { class: 'row' }, head, this.#grid, this.#wordsBox);
    this.#cells.addEventListener('keydown', (event) => this.#onKey(event));
    this.#cells.addEventListener('pointerover', (event) => this.#look(event.target));
    this.#cells.addEventListener('focusin', (event) => this.#look(event.target));
    this.#cells.addEventListener('pointerleave', () => this.#onLook(undefined, 0));
    this.#wordsBox.addEventListener('toggle', () => this.update(this.#content));
  }

  /** @param {RowContent} content */
  update(content) {
    const { frame, title, over } = content;
    const before = this.#shown;
    this.#content = content;
    this.#shown = { frame, over, answerStart: content.transcript?.answerStart, words: this.#wordsBox.open };
    if (before !== undefined && isSame(before, this.#shown)) return;
    this.element.dataset['over'] = String(over);
    setText(this.#title, title);
    setText(this.#facts, factsOf(content));
    if (this.#grid.getAttribute('aria-label') !== title) this.#grid.setAttribute('aria-label', `Blocks of ${title}`);
    const first = Math.max(0, frame.blocks - MAX_CELLS);
    if (first !== this.#first) this.#drawn = [];
    this.#first = first;
    const { answerStart } = this.#shown;
    const answerBlock = answerStart === undefined ? Infinity : Math.floor(answerStart / frame.blockSize);
    const cells = cellsOf(frame).slice(first);
    while (this.#spans.length > cells.length) this.#spans.pop()?.remove();
    this.#drawn.length = Math.min(this.#drawn.length, cells.length);
    for (const [index, { kind, level, pick }] of cells.entries()) {
      const block = first + index;
      const answers = block >= answerBlock;
      // Where nothing goes, nothing goes first: no colour of that scale.
      const rank = kind !== 'kept' ? '' : frame.mode === OFF ? ' unranked' : ` v${level}`;
      const look = `${kind}${rank} ${pick} ${answers}`;
      if (this.#drawn[index] === look) continue;
      this.#drawn[index] = look;
      let span = this.#spans[index];
      if (span === undefined) {
        span = element('span', { role: 'gridcell', tabindex: '-1' });
        this.#spans.push(span);
        this.#cells.append(span);
      }
      span.className = `cell ${kind}${rank}${pick ? ' pick' : ''}${answers ? ' answers' : ''}`;
      span.setAttribute(
        'aria-label',
        `block ${block}, ${answers ? 'answer, ' : ''}${KIND_NAMES[kind]}${pick ? ', read by a trial answer' : ''}`,
      );
    }
    this.#current = Math.min(this.#current, Math.max(0, cells.length - 1));
    if (this.#spans[this.#current]?.tabIndex === -1) this.#enter(this.#current);
    if (this.#wordsBox.open) setText(this.#words, describe(frame));
  }

  /** @param {number} block */
  focus(block) {
    const index = Math.max(0, Math.min(this.#spans.length - 1, block - this.#first));
    this.#enter(index);
    this.#spans[index]?.focus();
  }

  /** @param {number} index the one cell of the row that Tab reaches */
  #enter(index) {
    const before = this.#spans[this.#current];
    if (before !== undefined) before.tabIndex = -1;
    this.#current = index;
    const now = this.#spans[index];
    if (now !== undefined) now.tabIndex = 0;
  }

  /** @param {EventTarget | null} target */
  #look(target) {
    const index = this.#spans.indexOf(/** @type {HTMLElement} */ (target));
    if (index >= 0) this.#onLook(this.#content, this.#first + index);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const block = this.#first + this.#current;
    const jumps = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = jumps[/** @type {keyof typeof jumps} */ (event.key)];
    if (step !== undefined) this.focus(Math.max(0, Math.min(this.#first + this.#spans.length - 1, block + step)));
    else if (event.key === 'ArrowDown') this.#onMove(this, block, 1);
    else if (event.key === 'ArrowUp') this.#onMove(this, block, -1);
    else return;
    event.preventDefault();
  }
}

/**
 * @param {Shown} a
 * @param {Shown} b
 */
function isSame(a, b) {
  return a.frame === b.frame && a.over === b.over && a.answerStart === b.answerStart && a.words === b.words;
}

/** @param {RowContent} content */
function factsOf({ frame, over }) {
  const { blocks, resident, evicted, probes, cold, policy, mode } = frame;
  const held = `${mode === OFF ? 'not managed' : `policy ${policy}`}: ${resident} of ${blocks} blocks in memory`;
  const back =
    evicted === 0 ? 'nothing given back' : `${evicted} given back (${Math.round((100 * evicted) / blocks)} %)`;
  const asked = probes === 0 ? '' : `, ${probes} trial ${probes === 1 ? 'answer' : 'answers'}`;
  return `${over ? 'Ended, ' : ''}${held}, ${back}${asked}${cold ? ', history lost: nothing is evicted yet' : ''}.`;
}

/**
 * A looked-at block in words and its text.
 *
 * @param {RowContent} content
 * @param {number} block
 */
export function blockDetails({ frame, transcript, title }, block) {
  const from = block * frame.blockSize;
  const text = transcript?.text(from, Math.min(frame.tokens, from + frame.blockSize));
  const about = transcript?.approximate ? ' (about)' : '';
  return {
    heading: `Block ${block} of ${title}`,
    facts: `${blockFacts(frame, block).join(' · ')}.`,
    text: text === undefined || text === '' ? undefined : text,
    note:
      transcript === undefined ? 'This page does not know the text of requests from elsewhere.' : `Its text${about}:`,
  };
}
