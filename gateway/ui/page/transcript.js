/**
 * What stands at each position of a request: the prompt's tokens, then what the model wrote. The engine tells token ids
 * with each piece of text, so that positions are exact; where it does not, a piece counts as one token.
 */
export class Transcript {
  /** @type {{ text: string, kind: 'reasoning' | 'content' }[]} One entry for each generated token. */
  #tokens = [];
  /** @type {string[]} */
  #prompt = [];
  #glue = '';
  promptTokens = 0;
  /** The text of a block may be off by some tokens. */
  approximate = false;

  get generated() {
    return this.#tokens.length;
  }

  /**
   * @param {number} count
   * @param {string[] | undefined} texts of each token, when the engine's tokenizer gave as many
   */
  setPrompt(count, texts) {
    this.promptTokens = count;
    this.#prompt = texts?.length === count ? texts.map(readable) : [];
    // Tokenizers that write spaces down need none in between.
    this.#glue = texts?.some((text) => /[Ġ▁]/.test(text)) ? '' : ' ';
  }

  /**
   * @param {string} text
   * @param {'reasoning' | 'content'} kind
   * @param {number | undefined} count tokens that made it; undefined: the engine did not say
   */
  add(text, kind, count) {
    if (count === undefined) this.approximate = true;
    const tokens = count ?? (text === '' ? 0 : 1);
    if (tokens > 1) this.approximate = true;
    // Several tokens in one piece: cut evenly, since nothing tells where one ends.
    for (let i = 0; i < tokens; i += 1) {
      const from = Math.round((text.length * i) / tokens);
      this.#tokens.push({ text: text.slice(from, Math.round((text.length * (i + 1)) / tokens)), kind });
    }
  }

  /**
   * A generated token, counted from the first one.
   *
   * @param {number} index
   */
  at(index) {
    return this.#tokens[index];
  }

  /**
   * The text of the positions `[from, to)`; undefined where the page does not know it.
   *
   * @param {number} from
   * @param {number} to
   */
  text(from, to) {
    const pieces = [];
    if (from < this.promptTokens) {
      if (this.#prompt.length === 0) return undefined;
      pieces.push(this.#prompt.slice(from, to).join(this.#glue));
    }
    const generated = this.#tokens.slice(Math.max(0, from - this.promptTokens), Math.max(0, to - this.promptTokens));
    pieces.push(generated.map(({ text }) => text).join(''));
    return pieces.join(' ').trim();
  }

  /**
   * What was generated in `[from, to)`, counted from the first generated token.
   *
   * @param {number} from
   * @param {number} to
   * @param {'reasoning' | 'content'} kind
   */
  generatedText(from, to, kind) {
    let text = '';
    for (const token of this.#tokens.slice(Math.max(0, from), Math.max(0, to)))
      if (token.kind === kind) text += token.text;
    return text;
  }

  /**
   * The position of the first token of the answer; undefined: there is none so far.
   */
  get answerStart() {
    const index = this.#tokens.findIndex(({ kind }) => kind === 'content');
    return index < 0 ? undefined : this.promptTokens + index;
  }
}

/**
 * Tokenizers write a space as a letter of its own.
 *
 * @param {string} token
 */
function readable(token) {
  return token.replaceAll('Ġ', ' ').replaceAll('▁', ' ').replaceAll('Ċ', '\n');
}
