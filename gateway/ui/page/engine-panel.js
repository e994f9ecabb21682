import { EngineChart } from './charts.js';
import { byId, setText } from './dom.js';

/** The pools of all engines together, and their speed. */
export class EnginePanel {
  /** The newest state of each source. @type {Map<number, any>} */
  #states = new Map();
  #chart = new EngineChart(byId('engine-chart'));

  /**
   * @param {any} state of a source
   * @returns {number} blocks of all pools
   */
  add(state) {
    this.#states.set(state.source, state);
    const { pool, free } = this.#pool;
    const tokens = [...this.#states.values()].reduce((sum, { totals }) => sum + totals.generatedTokens, 0);
    this.#chart.add(tokens, pool === 0 ? 0 : (100 * (pool - free)) / pool);
    byId('engine-section').hidden = pool === 0;
    return pool;
  }

  /** @param {number | undefined} source undefined: all */
  lose(source) {
    if (source === undefined) this.#states.clear();
    else this.#states.delete(source);
  }

  draw() {
    this.#chart.draw();
    const { pool, free } = this.#pool;
    setText(byId('figure-pool'), pool === 0 ? '-' : `${pool - free} of ${pool} blocks`);
    setText(byId('figure-rate'), `${Math.round(this.#chart.rate)} tokens/s`);
  }

  get #pool() {
    const engines = [...this.#states.values()].flatMap((state) => state.engines);
    const pool = engines.reduce((sum, { totalBlocks }) => sum + totalBlocks, 0);
    return { pool, free: engines.reduce((sum, { freeBlocks }) => sum + freeBlocks, 0) };
  }
}
