import { byId, element, setText } from './dom.js';
import { profileOptions, sentenceOf, takesBudget } from './profiles.js';

/** The slider's last step: no budget of the request's own. */
const NO_BUDGET = 1_056;

/**
 * @typedef {object} Example
 * @property {string} title
 * @property {{ role: string, content: string }[]} messages
 * @property {string} [answer] the right one
 * @property {number} budgetTokens meant to keep its answer
 * @property {string} [help]
 */

/**
 * What is preselected for a model: what we recommend and have measured.
 *
 * @typedef {object} Preset
 * @property {string} model part of its name; empty: any other
 * @property {number} first the example
 * @property {string} profile
 * @property {Example[]} examples
 */

/** What to ask and how its cache is managed. A change holds for the next request. */
export class Controls {
  /** @type {Preset | undefined} */
  #preset;
  #model = '';
  /** @type {any[]} */
  #profiles = [];
  /** @type {any[]} */
  #policies = [];
  #onAsk;

  /**
   * @param {{ onAsk: (asked: { requests: { title: string, model: string, messages: { role: string, content: string }[], cache: object }[], expected: string | undefined }) => void, onStop: () => void }} on
   */
  constructor({ onAsk, onStop }) {
    this.#onAsk = onAsk;
    byId('stop').addEventListener('click', onStop);
    byId('budget').addEventListener('input', () => this.#explain());
    byId('profile').addEventListener('change', () => this.#explain());
    byId('example').addEventListener('change', () => this.#takeExample());
    byId('more').addEventListener('click', () => this.#toggleChoices());
    byId('ask-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.#ask(/** @type {HTMLButtonElement | null} */ (event.submitter)?.value !== 'one');
    });
  }

  /** Tokens a second at which requests are shown; 0: as they come. */
  get pace() {
    return Number(byId('speed', HTMLSelectElement).value);
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    byId('stop').hidden = !busy;
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
    const before = byId('profile', HTMLSelectElement).value;
    if (this.#preset === undefined) await this.#loadPreset();
    byId('profile').replaceChildren(...profileOptions(this.#profiles));
    const names = this.#profiles.map(({ name }) => name);
    const wanted = [before, this.#preset?.profile].find((name) => names.includes(name));
    if (wanted !== undefined) byId('profile', HTMLSelectElement).value = wanted;
    const budget = byId('budget', HTMLInputElement);
    budget.min = String(Math.max(Number(budget.min), setup.budgetTokens.min));
    this.#explain();
    for (const id of ['run', 'compare']) byId(id, HTMLButtonElement).disabled = false;
  }

  async #loadPreset() {
    /** @type {Preset[]} */
    const presets = await (await fetch('ui/examples.json')).json();
    this.#preset = presets.find(({ model }) => model !== '' && this.#model.includes(model)) ?? presets.at(-1);
    if (this.#preset === undefined) return;
    byId('example').replaceChildren(
      ...this.#preset.examples.map(({ title }, index) => element('option', { value: String(index) }, title)),
    );
    byId('example', HTMLSelectElement).value = String(this.#preset.first);
    this.#takeExample();
  }

  #takeExample() {
    const example = this.#example;
    if (example === undefined) return;
    byId('prompt', HTMLTextAreaElement).value = example.messages.at(-1)?.content ?? '';
    setText(byId('prompt-help'), example.help ?? '');
    byId('budget', HTMLInputElement).value = String(example.budgetTokens);
    this.#explain();
  }

  #toggleChoices() {
    const choices = byId('choices');
    choices.hidden = !choices.hidden;
    byId('more').setAttribute('aria-expanded', String(!choices.hidden));
  }

  get #example() {
    return this.#preset?.examples[Number(byId('example', HTMLSelectElement).value)];
  }

  get #profile() {
    return this.#profiles.find(({ name }) => name === byId('profile', HTMLSelectElement).value);
  }

  #explain() {
    const budget = byId('budget', HTMLInputElement);
    budget.disabled = !takesBudget(this.#profile);
    const tokens = this.#budget;
    const limit = budget.disabled ? 'all of them' : "the policy's own limit";
    const text = tokens === undefined ? limit : `${tokens} tokens`;
    setText(byId('budget-text'), text);
    budget.setAttribute('aria-valuetext', text);
    setText(byId('profile-help'), sentenceOf(this.#profile, this.#policies));
  }

  get #budget() {
    const { value, disabled } = byId('budget', HTMLInputElement);
    return disabled || Number(value) >= NO_BUDGET ? undefined : Number(value);
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
    if (two) requests.unshift({ ...request, title: 'everything kept', cache: { mode: 'off' } });
    this.#onAsk({ requests, expected: untouched ? example.answer : undefined });
  }
}
