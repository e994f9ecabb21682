/** @import { Frame } from './frames.js' */
/** @import { Told } from './verdict.js' */
/** @import { Transcript } from './transcript.js' */
import { element, setText } from './dom.js';
import { drawStrip } from './heads.js';
import { ALL, INKS, inkOf, shareOf } from './held.js';

const STILL = matchMedia('(prefers-reduced-motion: reduce)');

/**
 * What is read: a request of this page, or a recorded one.
 *
 * @typedef {Pick<Told, 'state' | 'error'> & {
 *   request: { title: string },
 *   transcript: Transcript,
 *   over: boolean,
 * }} Readable
 */

/**
 * What one request has written: the reasoning token by token, each with as much ink as is in memory of it, and the answer.
 */
export class Reading {
  element;
  #badge = element('p', { class: 'badge' });
  #text = element('div', { class: 'text' });
  #reasoning;
  #strip = element('canvas', { class: 'strip', 'aria-hidden': 'true' });
  #answer = element('div', { class: 'answer' });
  /** @type {(HTMLElement | undefined)[]} one for each token of the reasoning */
  #spans = [];
  /** @type {number[]} the ink that each shows */
  #inks = [];
  #run;
  /** @type {HTMLElement[]} */
  #marked = [];
  #wasOver = false;

  /**
   * @param {Readable} run
   * @param {string | undefined} expected the right answer, where it is known
   * @param {boolean} managed its cache is managed: it is what the page is about
   */
  constructor(run, expected, managed) {
    this.#run = run;
    this.expected = expected;
    const { title } = run.request;
    const label = `Reasoning of ${title}`;
    this.#reasoning = element(
      'div',
      { class: 'reasoning', tabindex: '0', role: 'region', 'aria-label': label },
      this.#text,
    );
    this.element = element(
      'article',
      { class: managed ? 'reading managed' : 'reading' },
      element(
        'div',
        { class: 'reading-head' },
        element('h3', {}, managed ? 'With Crystal-KV' : 'Everything kept'),
        ...(managed ? [element('p', { class: 'help' }, title)] : []),
        this.#badge,
      ),
      this.#reasoning,
      this.#strip,
      element('div', { class: 'answer-row' }, element('h4', {}, 'Answer'), this.#answer),
    );
  }

  /**
   * @param {number} shown generated tokens to show
   * @param {Frame | undefined} frame the state of the cache at that moment
   */
  update(shown, frame) {
    const { transcript, over } = this.#run;
    const prompt = transcript.promptTokens;
    const upTo = Math.min(shown, transcript.generated);
    const box = this.#reasoning;
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 48;
    while (this.#spans.length > upTo) {
      this.#spans.pop()?.remove();
      this.#inks.pop();
    }
    for (let index = 0; index < upTo; index += 1) {
      const ink = inkOf(shareOf(frame, prompt + index));
      if (index === this.#spans.length) this.#spans.push(this.#newSpan(index));
      const span = this.#spans[index];
      if (span === undefined || this.#inks[index] === ink) continue;
      this.#inks[index] = ink;
      span.className = ink === INKS - 1 ? 'ink' : `ink i${ink}`;
    }
    const ended = over && upTo === transcript.generated;
    // While it writes, the end is in sight; then the beginning, which is what it has let go of.
    if (ended && !this.#wasOver) box.scrollTo({ top: 0, behavior: STILL.matches ? 'auto' : 'smooth' });
    else if (atEnd && !ended) box.scrollTop = box.scrollHeight;
    this.#wasOver = ended;
    this.#showAnswer(transcript.generatedText(0, upTo, 'content').trim(), ended);
  }

  /**
   * @param {number} shown generated tokens to show
   * @param {Frame | undefined} frame
   * @param {number} total tokens that the longest of the requests has written
   */
  drawStrip(shown, frame, total) {
    const { promptTokens, generated } = this.#run.transcript;
    drawStrip(this.#strip, frame, { promptTokens, shown: Math.min(shown, generated), total });
  }

  /**
   * @param {number | undefined} from position of the first token that is looked at in a picture
   * @param {number} count
   */
  mark(from, count) {
    for (const span of this.#marked) span.classList.remove('looked-at');
    this.#marked = [];
    if (from === undefined) return;
    const start = from - this.#run.transcript.promptTokens;
    this.#marked = this.#spans
      .slice(Math.max(0, start), Math.max(0, start + count))
      .filter((span) => span !== undefined);
    for (const span of this.#marked) span.classList.add('looked-at');
    const [first] = this.#marked;
    if (first === undefined) return;
    const top = first.offsetTop - this.#text.offsetTop;
    const box = this.#reasoning;
    if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 30) box.scrollTop = top - box.clientHeight / 2;
  }

  /**
   * @param {number} index
   * @returns {HTMLElement | undefined} undefined: the token is not part of the reasoning
   */
  #newSpan(index) {
    const token = this.#run.transcript.at(index);
    if (token === undefined || token.kind !== 'reasoning' || token.text === '') return undefined;
    const span = element('span', { class: 'ink' }, token.text);
    this.#inks[index] = inkOf(ALL);
    this.#text.append(span);
    return span;
  }

  /**
   * @param {string} answer
   * @param {boolean} ended all of it is shown
   */
  #showAnswer(answer, ended) {
    const { state, transcript } = this.#run;
    const shownState = ended ? state : answer === '' ? 'thinking' : 'answering';
    const texts = {
      waiting: 'waiting',
      running: 'thinking',
      thinking: transcript.generated === 0 ? 'waiting' : 'thinking',
      answering: 'answering',
      done: `${transcript.generated} tokens`,
      stopped: 'stopped',
      failed: 'failed',
    };
    setText(this.#badge, texts[shownState]);
    this.element.dataset['state'] = shownState;
    const key = `${answer} ${ended}`;
    if (this.#answer.dataset['text'] === key) return;
    this.#answer.dataset['text'] = key;
    this.#answer.replaceChildren(...answerNodes(answer, this.expected, ended));
  }
}

/**
 * Where the right answer is known, each part of it says whether it is right; a last part that may go on does not yet.
 *
 * @param {string} answer
 * @param {string | undefined} expected
 * @param {boolean} ended
 */
function answerNodes(answer, expected, ended) {
  if (answer === '') return [element('span', { class: 'none' }, ended ? 'none' : 'not yet')];
  if (expected === undefined) return [element('span', { class: 'part' }, answer)];
  const right = new Set(partsOf(expected));
  const parts = partsOf(answer);
  return parts.map((part, index) => {
    if (!ended && index === parts.length - 1) return element('span', { class: 'part' }, part);
    const good = right.has(part);
    const word = element('span', { class: 'mark' }, element('span', { class: 'word' }, good ? 'right' : 'wrong'));
    return element('span', { class: `part ${good ? 'right' : 'wrong'}` }, `${part} `, word);
  });
}

/** @param {string} text */
function partsOf(text) {
  return text.split(/;\s+|\s+(?=Q\d)/).map((part) => part.trim());
}
