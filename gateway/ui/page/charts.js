/** @import { Shown } from './stage.js' */
import { colour } from './heads.js';
import { unitOf } from './verdict.js';

/** What the chart of the engine remembers, in seconds and points. */
const WINDOW_S = 60;
const MAX_POINTS = 1_300;
/** Over which time speed is measured, in seconds, and the least that tells it. */
const RATE_S = 0.8;
const RATE_LEAST_S = 0.2;
const HEIGHT = { memory: 138, narrow: 92, engine: 190 };
/** Below this width a chart is a telephone's. */
const NARROW = 480;

/** @param {string} label empty: none */
function axis(label) {
  return {
    stroke: () => colour('--muted'),
    grid: { stroke: () => colour('--line'), width: 1 },
    ticks: { stroke: () => colour('--line'), width: 1 },
    font: FONT,
    labelFont: FONT,
    ...(label === '' ? {} : { label, labelSize: 18 }),
    size: 44,
  };
}

const FONT = '12px system-ui, sans-serif';

/**
 * A chart that is as wide as its place.
 *
 * @param {HTMLElement} place
 * @param {any} options
 * @param {number} height
 * @returns {UPlot}
 */
function makeChart(place, options, height) {
  const chart = new uPlot(
    {
      width: Math.max(200, place.clientWidth),
      height,
      legend: { show: false },
      cursor: { show: false },
      ...options,
    },
    options.series.map(() => []),
    place,
  );
  new ResizeObserver(() => {
    const width = Math.max(200, place.clientWidth);
    if (width !== chart.width) chart.setSize({ width, height });
  }).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => chart.redraw(false));
  return chart;
}

/** Memory of one request and of its full cache, over the tokens that it has written. */
export class MemoryChart {
  #place;
  #chart;
  #unit = 'blocks';

  /** @param {HTMLElement} place */
  constructor(place) {
    this.#place = place;
    const values = (/** @type {UPlot} */ chart, /** @type {number[]} */ splits) =>
      splits.map((size) => (size === 0 ? '0' : chart.data[0]?.length === 0 ? '' : `${size} ${this.#unit}`));
    const options = {
      padding: [8, 14, 0, 0],
      scales: {
        x: { time: false },
        y: {
          range: (/** @type {UPlot} */ _, /** @type {number} */ __, /** @type {number} */ max) => [
            0,
            Math.max(0.1, max * 1.1),
          ],
        },
      },
      axes: [
        { ...axis(''), size: 26, space: 70 },
        { ...axis(''), size: 66, space: 26, values },
      ],
      series: [
        {},
        { stroke: () => colour('--full'), width: 2, dash: [6, 4], points: { show: false } },
        { stroke: () => colour('--accent'), width: 3, points: { show: false }, fill: () => colour('--accent-wash') },
      ],
    };
    this.#chart = makeChart(
      place,
      options,
      place.clientWidth < NARROW && innerWidth < 2 * NARROW ? HEIGHT.narrow : HEIGHT.memory,
    );
  }

  /**
   * @param {Shown | undefined} run the one whose cache is managed
   * @param {number} shown generated tokens to show
   * @param {number} bytesPerBlock 0: unknown
   */
  update(run, shown, bytesPerBlock) {
    /** @type {number[]} */
    const x = [];
    const full = [];
    const resident = [];
    for (const frame of run?.frames.all ?? []) {
      const generated = frame.tokens - frame.promptTokens;
      if (generated < 0 || generated > shown || generated <= (x.at(-1) ?? -1)) continue;
      x.push(generated);
      full.push(frame.blocks);
      resident.push(frame.resident);
    }
    const { unit, size } = unitOf((full.at(-1) ?? 0) * bytesPerBlock);
    this.#unit = bytesPerBlock === 0 ? 'blocks' : unit;
    const scale = bytesPerBlock === 0 ? 1 : bytesPerBlock / size;
    this.#chart.setData([x, full.map((blocks) => blocks * scale), resident.map((blocks) => blocks * scale)]);
    const words =
      x.length === 0
        ? 'nothing yet'
        : `after ${x.at(-1)} tokens ${resident.at(-1)} blocks are in memory where a full cache holds ${full.at(-1)}`;
    this.#place.setAttribute('aria-label', `Memory: ${words}`);
  }
}

/** The share of the engine's pool in use over the last minute, and its speed now: one axis is read at a glance. */
export class EngineChart {
  #place;
  #chart;
  /** @type {{ at: number, tokens: number, used: number }[]} */
  #points = [];

  /** @param {HTMLElement} place */
  constructor(place) {
    this.#place = place;
    const options = {
      scales: {
        x: { time: false, range: [-WINDOW_S, 0] },
        share: { range: [0, 100] },
      },
      axes: [axis('seconds ago'), { ...axis('pool in use, %'), scale: 'share' }],
      series: [
        {},
        {
          scale: 'share',
          stroke: () => colour('--accent'),
          width: 2,
          fill: () => colour('--accent-wash'),
          points: { show: false },
        },
      ],
    };
    this.#chart = makeChart(place, options, HEIGHT.engine);
  }

  /** A watch that began anew counts from nothing.
   *
   * @param {number} tokens generated since the watch began
   * @param {number} used percent of the pool
   */
  add(tokens, used) {
    if (tokens < (this.#points.at(-1)?.tokens ?? 0)) this.#points = [];
    this.#points.push({ at: performance.now() / 1000, tokens, used });
    const oldest = performance.now() / 1000 - WINDOW_S - 2;
    while (this.#points.length > MAX_POINTS || (this.#points[0]?.at ?? oldest) < oldest) this.#points.shift();
  }

  /** Tokens a second over the last second or so. */
  get rate() {
    const end = this.#points.at(-1);
    if (end === undefined) return 0;
    const start = this.#points.findLast(({ at }) => end.at - at >= RATE_S) ?? this.#points[0];
    if (start === undefined || end.at - start.at < RATE_LEAST_S) return 0;
    return (end.tokens - start.tokens) / (end.at - start.at);
  }

  draw() {
    const now = performance.now() / 1000;
    const x = this.#points.map(({ at }) => at - now);
    const used = this.#points.map((point) => point.used);
    this.#chart.setData([x, used]);
    const last = this.#points.at(-1);
    const words =
      last === undefined
        ? 'nothing yet'
        : `${Math.round(last.used)} % of the pool in use, ${Math.round(this.rate)} tokens a second`;
    this.#place.setAttribute('aria-label', `The engine in the last minute: ${words}`);
  }
}
