/** @import { Frame } from './frames.js' */
/** @import { RowContent } from './map.js' */
import { ApiError, apiKey, call, followStates } from './api.js';
import { EngineChart, MemoryChart } from './charts.js';
import { Controls } from './controls.js';
import { byId, element, setText } from './dom.js';
import { frameOf } from './frames.js';
import { blockDetails, CrystalMap } from './map.js';
import { Playhead } from './playhead.js';
import { Reading } from './reading.js';
import { Run } from './run.js';
import { verdict } from './verdict.js';

/** Requests from elsewhere stay this long after their end. */
const LINGER_MS = 15_000;
const MAX_OTHERS = 12;
/** Milliseconds between two drawings: states do not come more often. */
const DRAW_MS = 45;
/** The same of charts. */
const CHART_MS = 250;
const DEFAULT_BLOCK_SIZE = 16;

/** @type {{ run: Run, reading: Reading }[]} */
let own = [];
/** @type {Map<string, { frame: Frame, endedAt: number | undefined }>} */
const others = new Map();
/** The newest state of each source. @type {Map<number, any>} */
const sources = new Map();
/** @type {{ content: RowContent, block: number } | undefined} */
let looked;
let announced = true;
let blockSize = DEFAULT_BLOCK_SIZE;
let bytesPerBlock = 0;

const controls = new Controls({ onAsk: ask, onStop: stopAll });
const playhead = new Playhead();
const memoryChart = new MemoryChart(byId('memory-chart'));
const engineChart = new EngineChart(byId('engine-chart'));
const map = new CrystalMap(byId('map'), (content, block) => {
  looked = content === undefined ? undefined : { content, block };
  showBlock();
});

/** @param {{ requests: ConstructorParameters<typeof Run>[0][], expected: string | undefined }} asked */
function ask({ requests, expected }) {
  stopAll();
  own = requests.map((request) => {
    const run = new Run(request);
    return { run, reading: new Reading(run, expected) };
  });
  byId('readings').replaceChildren(...own.map(({ reading }) => reading.element));
  byId('text-card').hidden = false;
  setText(byId('verdict'), '');
  announced = false;
  looked = undefined;
  showBlock();
  playhead.begin();
  controls.setBusy(true);
  for (const { run } of own) void run.go().then(() => after(run));
}

function stopAll() {
  for (const { run } of own) run.stop();
}

/** @param {Run} run */
function after(run) {
  if (run.state === 'failed' && run.error.startsWith('401')) askForKey();
  if (own.every((entry) => entry.run.over)) controls.setBusy(false);
}

/** @param {any} state */
function onState(state) {
  sources.set(state.source, state);
  const sizes = new Map(state.engines.map((/** @type {any} */ engine) => [engine.engineId, engine.blockSize]));
  const seen = new Set();
  for (const request of state.requests) {
    const frame = frameOf(request, state.source, sizes.get(request.engineId) ?? DEFAULT_BLOCK_SIZE);
    seen.add(frame.key);
    const mine = own.find(({ run }) => run.id !== '' && run.id === frame.id);
    if (mine === undefined) others.set(frame.key, { frame, endedAt: frame.ended ? performance.now() : undefined });
    else {
      mine.run.frames.add(frame);
      others.delete(frame.key);
    }
  }
  for (const [key, other] of others) {
    if (key.startsWith(`${state.source} `) && !seen.has(key)) other.endedAt ??= performance.now();
  }
  const engine = state.engines[0];
  if (engine !== undefined) {
    blockSize = engine.blockSize;
    bytesPerBlock = engine.bytesPerBlock;
    setText(byId('block-size'), String(blockSize));
  }
  const all = [...sources.values()];
  const sum = (/** @type {(state: any) => number} */ of) => all.reduce((total, one) => total + of(one), 0);
  const pool = sum((one) =>
    one.engines.reduce((/** @type {number} */ total, /** @type {any} */ it) => total + it.totalBlocks, 0),
  );
  const free = sum((one) =>
    one.engines.reduce((/** @type {number} */ total, /** @type {any} */ it) => total + it.freeBlocks, 0),
  );
  engineChart.add(
    sum((one) => one.totals.generatedTokens),
    pool === 0 ? 0 : (100 * (pool - free)) / pool,
  );
  notice(pool === 0 ? 'No engine is attached to the policy service: the map stays empty.' : '');
}

/** @returns {RowContent[]} */
function rows() {
  const now = performance.now();
  for (const [key, { endedAt, frame }] of others) {
    const mine = own.some(({ run }) => run.id !== '' && run.id === frame.id);
    if (mine || (endedAt !== undefined && now - endedAt > LINGER_MS)) others.delete(key);
  }
  const mine = own.flatMap(({ run }) => {
    const frame =
      run.over && playhead.shown >= run.transcript.generated ? run.frames.last : run.frames.at(playhead.shown);
    if (frame === undefined) return [];
    const over = run.over && playhead.atEnd;
    return [{ key: frame.key, title: run.request.title, frame, transcript: run.transcript, over }];
  });
  // An id that the page does not know yet may be its own.
  const waiting = own.some(({ run }) => run.state === 'waiting');
  const foreign = [...others.values()].filter(({ endedAt }) => !waiting || endedAt !== undefined);
  return [
    ...mine,
    ...foreign
      .toSorted((a, b) => b.frame.handle - a.frame.handle)
      .slice(0, MAX_OTHERS)
      .map(({ frame, endedAt }) => ({
        key: frame.key,
        title: `request ${frame.handle} from elsewhere (${frame.policy})`,
        frame,
        transcript: undefined,
        over: endedAt !== undefined,
      })),
  ];
}

function showBlock() {
  for (const { run, reading } of own)
    reading.mark(looked?.content.transcript === run.transcript ? looked.block : undefined);
  if (looked === undefined) return;
  const { heading, facts, text, note } = blockDetails(looked.content, looked.block);
  const nodes = [element('h3', {}, heading), element('p', {}, facts)];
  if (text !== undefined) nodes.push(element('p', { class: 'help' }, note), element('p', { class: 'text' }, text));
  else if (looked.content.transcript === undefined) nodes.push(element('p', { class: 'help' }, note));
  byId('block').replaceChildren(...nodes);
}

let lastDraw = performance.now();
let lastChart = 0;

function draw() {
  requestAnimationFrame(draw);
  const now = performance.now();
  if (now - lastDraw < DRAW_MS) return;
  playhead.pace = controls.pace;
  playhead.advance(Math.max(0, ...own.map(({ run }) => run.transcript.generated)), now - lastDraw);
  lastDraw = now;
  const contents = rows();
  map.show(contents);
  byId('map-empty').hidden = contents.length > 0;
  for (const { run, reading } of own) {
    const content = contents.find(({ transcript }) => transcript === run.transcript);
    reading.update(playhead.shown, content?.frame, content?.frame.blockSize ?? blockSize);
  }
  if (now - lastChart > CHART_MS) {
    lastChart = now;
    drawFigures(contents);
    if (looked !== undefined) {
      const now = contents.find(({ key }) => key === looked?.content.key);
      if (now !== undefined && now.frame !== looked.content.frame && now.frame.blocks > looked.block) {
        looked = { content: now, block: looked.block };
      }
    }
  }
  drawPlay();
  if (!announced && own.length > 0 && own.every(({ run }) => run.over) && playhead.atEnd) {
    announced = true;
    setText(byId('verdict'), verdict(own));
  }
}

/** @param {RowContent[]} contents */
function drawFigures(contents) {
  const managed = own.at(-1)?.run;
  memoryChart.update(managed, playhead.shown + (managed?.over && playhead.atEnd ? 1 : 0));
  engineChart.draw();
  const frame = contents.find(
    ({ transcript }) => transcript !== undefined && transcript === managed?.transcript,
  )?.frame;
  const totals = [...sources.values()].map(({ totals }) => totals);
  const resident = frame?.resident ?? totals.reduce((sum, one) => sum + one.residentBlocks, 0);
  const full = frame?.blocks ?? totals.reduce((sum, one) => sum + one.fullBlocks, 0);
  setText(byId('figure-resident'), full === 0 ? '-' : amount(resident));
  setText(byId('figure-full'), full === 0 ? '-' : amount(full));
  setText(byId('figure-saved'), full === 0 ? '-' : `${Math.round((100 * (full - resident)) / full)} %`);
  const states = [...sources.values()].flatMap(({ engines }) => engines);
  const pool = states.reduce((sum, engine) => sum + engine.totalBlocks, 0);
  const free = states.reduce((sum, engine) => sum + engine.freeBlocks, 0);
  setText(byId('figure-pool'), pool === 0 ? '-' : `${pool - free} of ${pool} blocks`);
  setText(byId('figure-rate'), `${Math.round(engineChart.rate)} tokens/s`);
}

/** @param {number} blocks */
function amount(blocks) {
  const bytes = blocks * bytesPerBlock;
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  const power = bytes === 0 ? 0 : Math.min(3, Math.floor(Math.log2(bytes) / 10));
  const size = bytes === 0 ? '' : ` · ${(bytes / 1024 ** power).toPrecision(3)} ${units[power]}`;
  return `${blocks} blocks${size}`;
}

function drawPlay() {
  byId('play').hidden = own.length === 0;
  const time = byId('time', HTMLInputElement);
  time.max = String(playhead.known);
  if (document.activeElement !== time || playhead.playing) time.value = String(playhead.shown);
  setText(byId('time-text'), `${playhead.shown} tokens`);
  const over = playhead.atEnd && own.every(({ run }) => run.over);
  setText(byId('play-button'), over ? 'Replay' : playhead.playing ? 'Pause' : 'Play');
}

/** @param {string} text */
function notice(text) {
  const place = byId('notice');
  setText(place, text);
  place.hidden = text === '';
}

function askForKey() {
  const form = byId('key-form', HTMLFormElement);
  form.hidden = false;
  byId('key').focus();
}

async function begin() {
  try {
    const [setup, models] = await Promise.all([
      call('ui/api/setup').then((response) => response.json()),
      call('v1/models').then((response) => response.json()),
    ]);
    await controls.offer(setup, models.data?.[0]?.id ?? '');
    if (setup.sources.length === 0) {
      notice('No backend has a policyAddress: requests run, but the map stays empty.');
      return;
    }
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      askForKey();
      return;
    }
    notice(`The gateway is not ready: ${error instanceof Error ? error.message : error}. Trying again.`);
    setTimeout(begin, 2_000);
    return;
  }
  void followStates({
    onState,
    onLost: (source) => {
      if (source === undefined) sources.clear();
      else sources.delete(source);
      notice('The policy service cannot be reached: requests continue, and nothing is forgotten. Trying again.');
    },
    onRefused: askForKey,
  });
}

byId('key-form', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  apiKey.set(byId('key', HTMLInputElement).value);
  byId('key-form').hidden = true;
  void begin();
});
byId('play-button').addEventListener('click', () => playhead.toggle());
byId('time', HTMLInputElement).addEventListener('input', (event) => {
  if (event.target instanceof HTMLInputElement) playhead.jump(Number(event.target.value));
});
void begin();
requestAnimationFrame(draw);
