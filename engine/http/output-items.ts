type Kind = 'reasoning' | 'message';

/** Names of the events of a kind of item, and the type of its part. */
const WORDS = {
  reasoning: { prefix: 'rs', part: 'reasoning_text', event: 'response.reasoning_text' },
  message: { prefix: 'msg', part: 'output_text', event: 'response.output_text' },
} as const;

/** The output items of a response, one after the other, and the events that tell how they grow. */
export class OutputItems {
  readonly #id: string;
  /** Items that are complete. */
  readonly done: object[] = [];
  #open: { kind: Kind; text: string } | undefined;

  /** @param id of the response, without a prefix; those of its items derive from it */
  constructor(id: string) {
    this.#id = id;
  }

  /** Adds text to the item of this kind, which begins and ends the one before where necessary. */
  write(kind: Kind, text: string): object[] {
    if (text === '') return [];
    const events: object[] = [];
    if (this.#open?.kind !== kind) events.push(...this.close(), ...this.#begin(kind));
    if (this.#open !== undefined) this.#open.text += text;
    events.push({ type: `${WORDS[kind].event}.delta`, ...this.#place(kind), delta: text, ...logprobsOf(kind) });
    return events;
  }

  /** Ends the item that is open. */
  close(): object[] {
    if (this.#open === undefined) return [];
    const { kind, text } = this.#open;
    this.#open = undefined;
    const place = this.#place(kind);
    const part = partOf(kind, text, null);
    const item = this.#item(kind, [part], 'completed');
    this.done.push(item);
    return [
      { type: `${WORDS[kind].event}.done`, ...place, text, ...logprobsOf(kind) },
      { type: 'response.content_part.done', ...place, part },
      { type: 'response.output_item.done', output_index: place.output_index, item },
    ];
  }

  #begin(kind: Kind): object[] {
    this.#open = { kind, text: '' };
    const place = this.#place(kind);
    const item = this.#item(kind, kind === 'message' ? [] : undefined, 'in_progress');
    return [
      { type: 'response.output_item.added', output_index: place.output_index, item },
      { type: 'response.content_part.added', ...place, part: partOf(kind, '', []) },
    ];
  }

  #place(kind: Kind) {
    return { output_index: this.done.length, item_id: this.#idOf(kind), content_index: 0 };
  }

  #idOf(kind: Kind): string {
    return `${WORDS[kind].prefix}_${this.#id}`;
  }

  #item(kind: Kind, content: object[] | undefined, status: 'in_progress' | 'completed') {
    const id = this.#idOf(kind);
    if (kind === 'message') return { id, content, role: 'assistant', status, type: 'message', phase: null };
    return { id, summary: [], type: 'reasoning', content: content ?? null, encrypted_content: null, status };
  }
}

function partOf(kind: Kind, text: string, logprobs: null | []) {
  const type = WORDS[kind].part;
  return kind === 'message' ? { annotations: [], text, type, logprobs } : { text, type };
}

/** Those of text only; none was asked for. */
function logprobsOf(kind: Kind) {
  return kind === 'message' ? { logprobs: [] } : {};
}
