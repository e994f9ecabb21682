/** @import { RowContent } from './map.js' */
/** @import { Shown } from './stage.js' */
import { ApiError, apiKey, call, followStates } from './api.js';
import { MemoryChart } from './charts.js';
import { Controls } from './controls.js';
import { byId, element, setText } from './dom.js';
import { Elsewhere } from './elsewhere.js';
import { EnginePanel } from './engine-panel.js';
import { frameOf } from './frames.js';
import { drawHeads } from './heads.js';
import { blockDetails, CrystalMap } from './map.js';
import { loadRecording, RECORDING_PACE } from './recording.js';
import { Run } from './run.js';
import { Stage } from './stage.js';

/** Milliseconds between two drawings: states do not come more often. */
const DRAW_MS = 45;
/** The same of charts. */
const CHART_MS = 250;
/** How long the end of the recording stands before it begins again. */
const RECORDING_REST_MS = 9_000;
const DEFAULT_BLOCK_SIZE = 16;
/** Until something that was not there is asked for again. */
const AGAIN_MS = 2_000;

const stage = new Stage();
const elsewhere = new Elsewhere();
const engine = new EnginePanel();
const controls = new Controls({ onAsk: ask, onStop: stopAll });
const memoryChart = new MemoryChart(byId('memory-chart'));
/** @type {{ content: RowContent, block: number } | undefined} */
let looked;
const map = new CrystalMap(byId('map'), (content, block) => {
  looked = content === undefined ? undefined : { content, block };
  showBlock();
});
let bytesPerBlock = 0;

/** @param {{ requests: ConstructorParameters<typeof Run>[0][], expected: string | undefined }} asked */
function ask({ requests, expected }) {
  stopAll();
  const runs = requests.map((request) => new Run(request));
  put(runs, expected, '');
  stage.bytesPerBlock = bytesPerBlock;
  controls.setBusy(true);
  for (const run of runs) void run.go().then(() => after(run));
}

/**
 * @param {Shown[]} runs
 * @param {string | undefined} expected
 * @param {string} source what was recorded; empty: it runs here
 */
function put(runs, expected, source) {
  stage.put(runs, { expected, recorded: source !== '' });
  looked = undefined;
  showBlock();
  byId('source').hidden = source === '';
  setText(byId('source'), source);
}

function stopAll() {
  for (const { run } of stage.entries) run.stop();
}

/** @param {Run} run */
function after(run) {
  if (run.state === 'failed' && run.error.startsWith('401')) askForKey();
  if (stage.entries.every((entry) => entry.run.over)) controls.setBusy(false);
}

/** @param {any} state */
function onState(state) {
  const sizes = new Map(state.engines.map((/** @type {any} */ one) => [one.engineId, one.blockSize]));
  const seen = new Set();
  for (const request of state.requests) {
    const frame = frameOf(request, state.source, sizes.get(request.engineId) ?? DEFAULT_BLOCK_SIZE);
    seen.add(frame.key);
    const mine = stage.entries.find(({ run }) => isOf(run, frame));
    if (mine === undefined) elsewhere.add(frame);
    else {
      mine.run.frames.add(frame);
      elsewhere.remove(frame.key);
    }
  }
  elsewhere.endUnseen(state.source, seen);
  const [first] = state.engines;
  if (first !== undefined) {
    bytesPerBlock = first.bytesPerBlock;
    if (!stage.recorded) stage.bytesPerBlock = bytesPerBlock;
    setText(byId('block-size'), String(first.blockSize));
  }
  const pool = engine.add(state);
  notice(pool === 0 ? 'No engine is attached to the policy service: nothing is let go, and no memory is shown.' : '');
}

/**
 * @param {Shown} run
 * @param {{ id: string }} frame
 */
function isOf(run, frame) {
  return run.id !== '' && run.id === frame.id;
}

function showBlock() {
  for (const { run, reading } of stage.entries) {
    const here = looked?.content.transcript === run.transcript ? looked : undefined;
    const size = here?.content.frame.blockSize ?? 0;
    reading.mark(here === undefined ? undefined : here.block * size, size);
  }
  if (looked === undefined) return;
  const { heading, facts, text, note } = blockDetails(looked.content, looked.block);
  const nodes = [element('h3', {}, heading), element('p', {}, facts)];
  if (text !== undefined) nodes.push(element('p', { class: 'help' }, note), element('p', { class: 'text' }, text));
  else if (looked.content.transcript === undefined) nodes.push(element('p', { class: 'help' }, note));
  byId('block').replaceChildren(...nodes);
}

let lastDraw = performance.now();
let lastChart = 0;
let overSince = 0;

function draw() {
  requestAnimationFrame(draw);
  const now = performance.now();
  if (now - lastDraw < DRAW_MS) return;
  const { playhead } = stage;
  playhead.pace = stage.recorded ? RECORDING_PACE : controls.pace;
  playhead.advance(stage.generated, now - lastDraw);
  lastDraw = now;
  const waiting = stage.entries.some(({ run }) => run.state === 'waiting');
  const rows = [
    ...stage.rows,
    ...elsewhere.rows((frame) => stage.entries.some(({ run }) => isOf(run, frame)), waiting),
  ];
  map.show(rows);
  byId('map-empty').hidden = rows.length > 0;
  stage.drawTexts();
  stage.drawVerdict();
  stage.drawPlay();
  // a recording has its own pace
  byId('speed').hidden = stage.recorded;
  if (now - lastChart > CHART_MS) {
    lastChart = now;
    drawCharts(rows);
  }
  repeatRecording(now);
}

/** @param {RowContent[]} rows */
function drawCharts(rows) {
  const { managed } = stage;
  stage.drawStrips();
  memoryChart.update(managed, stage.over ? Infinity : stage.playhead.shown, stage.bytesPerBlock);
  engine.draw();
  const canvas = byId('heads', HTMLCanvasElement);
  const frame = managed === undefined ? undefined : stage.frameOf(managed);
  byId('heads-section').hidden = (frame?.held?.groups.length ?? 0) === 0;
  canvas.setAttribute('aria-label', `Heads: ${drawHeads(canvas, frame) || 'nothing yet'}`);
  const row = rows.find(({ key }) => key === looked?.content.key);
  if (
    looked !== undefined &&
    row !== undefined &&
    row.frame.blocks > looked.block &&
    row.frame !== looked.content.frame
  )
    looked = { content: row, block: looked.block };
}

/** @param {number} now */
function repeatRecording(now) {
  if (!stage.recorded || !stage.over || !stage.playhead.playing) overSince = now;
  else if (now - overSince > RECORDING_REST_MS) stage.playhead.begin();
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

/** Fills the lists; again as long as no policy service says what there is. Returns what the gateway knows of them. */
async function offer() {
  const [setup, models] = await Promise.all([
    call('ui/api/setup').then((response) => response.json()),
    call('v1/models').then((response) => response.json()),
  ]);
  await controls.offer(setup, models.data?.[0]?.id ?? '');
  /** @type {{ reachable: boolean }[]} */
  const sources = setup.sources;
  const known = sources.length === 0 || sources.some(({ reachable }) => reachable);
  if (!known) setTimeout(() => void offer().catch(() => {}), AGAIN_MS);
  return sources;
}

async function begin() {
  try {
    if ((await offer()).length === 0) {
      notice('No backend has a policyAddress: requests run, but nothing is known of their memory.');
      return;
    }
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      askForKey();
      return;
    }
    notice(`The gateway is not ready: ${error instanceof Error ? error.message : error}. Trying again.`);
    setTimeout(begin, AGAIN_MS);
    return;
  }
  void followStates({
    onState,
    onLost: (source) => {
      engine.lose(source);
      notice('The policy service cannot be reached: requests continue, and nothing is forgotten. Trying again.');
    },
    onRefused: askForKey,
  });
}

/** Something to look at until the visitor starts a run. */
async function playRecording() {
  const { runs, source, expected, bytesPerBlock: bytes } = await loadRecording();
  if (stage.entries.length > 0) return;
  put(runs, expected, source);
  stage.bytesPerBlock = bytes;
  if (!matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  stage.playhead.advance(stage.generated, 0);
  stage.playhead.jump(Infinity);
}

byId('key-form', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  apiKey.set(byId('key', HTMLInputElement).value);
  byId('key-form').hidden = true;
  void begin();
});
byId('play-button').addEventListener('click', () => stage.playhead.toggle());
byId('time', HTMLInputElement).addEventListener('input', (event) => {
  if (event.target instanceof HTMLInputElement) stage.playhead.jump(Number(event.target.value));
});
void begin();
void playRecording();
requestAnimationFrame(draw);
