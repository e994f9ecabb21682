import { byId, element, setText } from './dom.js';

/** The slider's last step: no budget of the request's own. */
const NO_BUDGET = 1_056;
/** The first that there is: where an engine can merge blocks, the plain one makes no trial answers to look at. */
const SHOWN_PROFILES = ['crystal-evict', 'crystal'];

/**
 * @typedef {object} Example
 * @property {string} title
 * @property {{ role: string, content: string }[]} messages
 * @property {string} [answer] the right one
 * @property {string} [help]
 */

/** What to ask and how its cache is managed. A change holds for the next request. */
export class Controls {
  /** @type {Example[]} */
  #examples = [];
  #model = '';
  /** @type {any[]} */
  #profiles = [];
  /** @type {any[]} */
  #policies = [];
  #onAsk;
  #blockSize = 16;

  /**
   * @param {{ onAsk: (asked: { requests: { title: string, model: string, messages: { role: string, content: string }[], cache: object }[], expected: string | undefined }) => void, onStop: () => void }} on
   */
  constructor({ onAsk, onStop }) {
    this.#onAsk = onAsk;
    byId('stop').addEventListener('click', onStop);
    byId('budget').addEventListener('input', () => this.#explain());
    byId('profile').addEventListener('change', () => this.#explain());
    byId('example').addEventListener('change', () => this.#takeExample());
    byId('ask-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.#ask(/** @type {HTMLButtonElement | null} */ (event.submitter)?.value === 'two');
    });
  }

  /** Tokens a second at which requests are shown; 0: as they come. */
  get pace() {
    return Number(byId('speed', HTMLSelectElement).value);
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    byId('stop', HTMLButtonElement).disabled = !busy;
  }

  /**
   * @param {any} setup
   * @param {string} model
   */
  async offer(setup, model) {
    this.#model = model;
    const source = setup.sources.find((/** @type {any} */ one) => one.reachable);
    this.#profiles = source?.profiles ?? [];
    this.#policies = source?.policies ?? [];
    this.#blockSize = source?.engines[0]?.blockSize ?? 16;
    const before = byId('profile', HTMLSelectElement).value;
    const names = this.#profiles.map(({ name }) => name);
    byId('profile').replaceChildren(
      ...(names.length === 0 ? [element('option', { value: '' }, 'default')] : []),
      ...names.map((name) => element('option', { value: name }, name)),
    );
    const wanted = [before, ...SHOWN_PROFILES].find((name) => names.includes(name));
    if (wanted !== undefined) byId('profile', HTMLSelectElement).value = wanted;
    const budget = byId('budget', HTMLInputElement);
    budget.min = String(Math.max(Number(budget.min), setup.budgetTokens.min));
    if (this.#examples.length === 0) await this.#loadExamples();
    this.#explain();
    for (const id of ['run', 'compare']) byId(id, HTMLButtonElement).disabled = false;
  }

  async #loadExamples() {
    const groups = await (await fetch('ui/examples.json')).json();
    const group = groups.find((/** @type {any} */ one) => this.#model.includes(one.model)) ?? groups.at(-1);
    this.#examples = group.examples;
    byId('example').replaceChildren(
      ...this.#examples.map(({ title }, index) => element('option', { value: String(index) }, title)),
    );
    byId('example', HTMLSelectElement).value = String(group.first ?? 0);
    this.#takeExample();
  }

  #takeExample() {
    const example = this.#example;
    if (example === undefined) return;
    byId('prompt', HTMLTextAreaElement).value = example.messages.at(-1)?.content ?? '';
    setText(byId('prompt-help'), example.help ?? '');
  }

  get #example() {
    return this.#examples[Number(byId('example', HTMLSelectElement).value)];
  }

  #explain() {
    const profile = this.#profiles.find(({ name }) => name === byId('profile', HTMLSelectElement).value);
    const policy = this.#policies.find(({ name }) => name === profile?.policy);
    const tokens = this.#budget;
    const text =
      tokens === undefined
        ? "the policy's own limit"
        : `${tokens} tokens (${Math.ceil(tokens / this.#blockSize)} blocks)`;
    setText(byId('budget-text'), text);
    byId('budget').setAttribute('aria-valuetext', text);
    const shadow = profile?.mode === 'shadow' ? ' It only counts what it would forget.' : '';
    setText(byId('profile-help'), `${policy?.summary ?? ''}${shadow} Changes apply to the next run.`.trim());
  }

  get #budget() {
    const value = Number(byId('budget', HTMLInputElement).value);
    return value >= NO_BUDGET ? undefined : value;
  }

  /** @param {boolean} two beside the full cache */
  #ask(two) {
    const content = byId('prompt', HTMLTextAreaElement).value.trim();
    if (content === '') return;
    const example = this.#example;
    const untouched = example !== undefined && example.messages.at(-1)?.content === content;
    // A changed prompt keeps what the example says besides: the system message.
    const messages = [...(example?.messages.slice(0, -1) ?? []), { role: 'user', content }];
    const profile = byId('profile', HTMLSelectElement).value;
    const tokens = this.#budget;
    /** @type {import('./run.js').CacheOption} */
    const cache = {
      ...(profile === '' ? {} : { profile }),
      ...(tokens === undefined ? {} : { budget_tokens: tokens }),
    };
    const title = `${profile === '' ? 'default' : profile}${tokens === undefined ? '' : `, ${tokens} tokens`}`;
    const request = { model: this.#model, messages };
    const requests = [{ ...request, title, cache }];
    if (two) requests.unshift({ ...request, title: 'full cache', cache: { mode: 'off' } });
    this.#onAsk({ requests, expected: untouched ? example.answer : undefined });
  }
}
