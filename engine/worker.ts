import { setImmediate as nextTurn } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { EngineCore } from './core/engine-core.ts';
import { readModelConfig } from './model/config.ts';
import { LlamaModel } from './model/llama.ts';
import type { GenerateEvent } from './types.ts';
import type { FromWorker, ToWorker, WorkerData } from './worker-protocol.ts';

/** The engine's worker thread: the model and its cache, so that HTTP and gRPC stay responsive. */
if (parentPort === null) throw new Error('engine/worker.ts runs as a worker thread');
const port = parentPort;
const options = workerData as WorkerData;
const send = (message: FromWorker) => port.postMessage(message);

const config = readModelConfig(options.modelFolder);
const model = new LlamaModel(
  options.modelFolder,
  config,
  options.blockSize,
  options.poolBlocks,
  Math.max(options.maxTokensPerStep, options.maxSequences),
  { weights: options.weights, maxLogits: options.maxSequences },
);
let events: { id: string; event: GenerateEvent }[] = [];
const core = new EngineCore(options, model, {
  event: (id, event) => events.push({ id, event }),
  report: (message) => send({ type: 'report', message }),
});

let closed = false;
let wake = () => {};
let lastPlanned = 0;

port.on('message', (message: ToWorker) => {
  switch (message.type) {
    case 'submit':
      core.submit(message.request);
      break;
    case 'abort':
      core.abort(message.id);
      break;
    case 'attach':
      lastPlanned = core.lastStep;
      core.attach(message.configure);
      break;
    case 'configure':
      core.configure(message.configure);
      break;
    case 'detach':
      core.detach();
      break;
    case 'plan':
      lastPlanned = Number(message.plan.basedOnStep);
      core.plan(message.plan);
      break;
    case 'close':
      closed = true;
      core.abortAll();
  }
  wake();
});

/** Resolves at the next message, or after `timeoutMs`. */
function nextMessage(timeoutMs?: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = timeoutMs === undefined ? undefined : setTimeout(resolve, timeoutMs);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

function flush(): void {
  send({ type: 'events', events, stats: core.stats() });
  events = [];
}

/** Waits for the plan of the last step while the stream is up, but not longer than the timeout. */
async function awaitPlan(timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!closed && core.expectsPlan && lastPlanned < core.lastStep) {
    const left = deadline - performance.now();
    if (left <= 0) return core.missPlan();
    await nextMessage(left);
  }
}

send({ type: 'ready', bytesPerBlock: model.bytesPerBlock, stats: core.stats() });
while (!closed) {
  if (!core.hasWork) {
    flush();
    await nextMessage();
    continue;
  }
  core.step();
  flush();
  if (options.lockstepTimeoutMs !== undefined && core.expectsPlan) await awaitPlan(options.lockstepTimeoutMs);
  else await nextTurn();
}
flush();
port.close();
