/** @import { Frame } from './frames.js' */
/** @import { Run } from './run.js' */
import { isKept } from './cells.js';
import { element, setText } from './dom.js';

/**
 * What one request has written: the reasoning block by block, so that what was forgotten can be seen, and the answer.
 */
export class Reading {
  element;
  #title = element('h3');
  #badge = element('p', { class: 'badge' });
  #reasoning = element('div', { class: 'reasoning', tabindex: '0', role: 'region' });
  #answer = element('div', { class: 'answer' });
  #result = element('p', { class: 'result' });
  /** @type {HTMLElement[]} */
  #spans = [];
  #run;
  /** @type {number | undefined} */
  #marked;

  /**
   * @param {Run} run
   * @param {string | undefined} expected the right answer, where it is known
   */
  constructor(run, expected) {
    this.#run = run;
    this.expected = expected;
    setText(this.#title, run.request.title);
    this.#reasoning.setAttribute('aria-label', `Reasoning of ${run.request.title}`);
    this.element = element(
      'article',
      { class: 'reading' },
      element('div', { class: 'row-head' }, this.#title, this.#badge),
      this.#reasoning,
      element('h4', {}, 'Answer'),
      this.#answer,
      this.#result,
    );
  }

  /**
   * @param {number} shown generated tokens to show
   * @param {Frame | undefined} frame the state of the cache at that moment
   * @param {number} blockSize
   */
  update(shown, frame, blockSize) {
    const { transcript } = this.#run;
    const prompt = transcript.promptTokens;
    const upTo = Math.min(shown, transcript.generated);
    const firstBlock = Math.floor(prompt / blockSize);
    const wanted = upTo === 0 ? 0 : Math.ceil((prompt + upTo) / blockSize) - firstBlock;
    const atEnd = this.#reasoning.scrollTop + this.#reasoning.clientHeight >= this.#reasoning.scrollHeight - 40;
    while (this.#spans.length > wanted) this.#spans.pop()?.remove();
    for (let i = 0; i < wanted; i += 1) {
      const block = firstBlock + i;
      let span = this.#spans[i];
      if (span === undefined) {
        span = element('span', { class: 'thought' });
        this.#spans.push(span);
        this.#reasoning.append(span);
      }
      const from = Math.max(0, block * blockSize - prompt);
      const to = Math.min(upTo, (block + 1) * blockSize - prompt);
      setText(span, transcript.generatedText(from, to, 'reasoning'));
      const gone = frame !== undefined && block < frame.blocks && !isKept(frame, block);
      span.classList.toggle('gone', gone);
    }
    if (atEnd) this.#reasoning.scrollTop = this.#reasoning.scrollHeight;
    this.#showAnswer(transcript.generatedText(0, upTo, 'content').trim(), upTo === transcript.generated);
  }

  /** @param {number | undefined} block the one that is looked at in the map */
  mark(block) {
    if (this.#marked !== undefined) this.#spans[this.#marked]?.classList.remove('looked-at');
    this.#marked = undefined;
    if (block === undefined || this.#run.frames.last === undefined) return;
    const index = block - Math.floor(this.#run.transcript.promptTokens / this.#run.frames.last.blockSize);
    const span = this.#spans[index];
    if (span === undefined) return;
    this.#marked = index;
    span.classList.add('looked-at');
    const middle = span.offsetTop - this.#reasoning.offsetTop - this.#reasoning.clientHeight / 2;
    if (Math.abs(middle - this.#reasoning.scrollTop) > this.#reasoning.clientHeight / 2)
      this.#reasoning.scrollTop = middle;
  }

  /** @param {string} text */
  setResult(text) {
    setText(this.#result, text);
  }

  /**
   * @param {string} answer
   * @param {boolean} complete all that has come is shown
   */
  #showAnswer(answer, complete) {
    const { state, error, speed, transcript } = this.#run;
    const shownState = this.#run.over && complete ? state : answer === '' ? 'thinking' : 'answering';
    const texts = {
      waiting: 'waiting',
      running: 'thinking',
      thinking: transcript.generated === 0 ? 'waiting' : 'thinking ...',
      answering: 'answering ...',
      done: `${transcript.generated} tokens${speed === undefined ? '' : `, ${Math.round(speed)} tokens/s`}`,
      stopped: 'stopped',
      failed: error,
    };
    setText(this.#badge, texts[shownState]);
    this.element.dataset['state'] = shownState;
    if (this.#answer.dataset['text'] === answer) return;
    this.#answer.dataset['text'] = answer;
    this.#answer.replaceChildren(...answerNodes(answer, this.expected));
  }
}

/**
 * Where the right answer is known, each part of it says whether it is right.
 *
 * @param {string} answer
 * @param {string | undefined} expected
 */
function answerNodes(answer, expected) {
  if (answer === '') return [];
  if (expected === undefined) return [element('span', { class: 'part' }, answer)];
  const right = new Set(partsOf(expected));
  return partsOf(answer).map((part) => {
    const good = right.has(part);
    const word = element('span', { class: 'verdict' }, good ? 'right' : 'wrong');
    return element('span', { class: `part ${good ? 'right' : 'wrong'}` }, `${part} `, word);
  });
}

/** @param {string} text */
function partsOf(text) {
  return text.split(/\s+(?=Q\d)/).map((part) => part.trim());
}
