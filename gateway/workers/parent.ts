import cluster, { type Worker } from 'node:cluster';
import { AggregatorRegistry, Registry } from 'prom-client';
import type { Logger } from '../../common/logger.ts';
import { backoffMs } from '../../common/time.ts';
import { createWorkerMetrics } from '../observe/metrics.ts';
import { isOurs, type ToParent, type ToWorker } from './messages.ts';

export interface Workers {
  /** All of them read the configuration again. */
  reload(): void;
  /** All of them drain; those that have not ended `graceMs` later are ended by force. Resolves when none is left. */
  stop(graceMs: number): Promise<void>;
}

const RESTART = { firstMs: 100, maxMs: 10_000 };
/** A worker that lived this long did not die of its start. */
const STEADY_MS = 30_000;

/** How long to wait before a worker is replaced, after `deaths` in a row of workers that did not live long. */
export function restartWaitMs(deaths: number): number {
  return backoffMs(deaths + 1, RESTART);
}

/**
 * Runs this program `count` times, on the same ports: node:cluster accepts connections in this process and hands them out
 * in turn. A worker that dies is replaced, at once or after a growing pause when it dies again and again. Rejects when
 * the first one cannot start, with its reason; then none is left.
 */
export async function startWorkers(count: number, logger: Logger): Promise<Workers> {
  const own = new Registry();
  const all = new AggregatorRegistry();
  const ready = new Set<Worker>();
  const { restarts } = createWorkerMetrics(own, () => ready.size);
  const timers = new Set<NodeJS.Timeout>();
  let stopping = false;
  let deaths = 0;

  const tell = (worker: Worker, message: ToWorker) => {
    if (worker.isConnected()) worker.send(message, () => {});
  };

  const answerMetrics = async (worker: Worker, id: number) => {
    try {
      const text = `${await all.clusterMetrics()}\n${await own.metrics()}`;
      tell(worker, { ckv: 'metrics', id, text });
    } catch (error) {
      tell(worker, { ckv: 'metrics_failed', id, message: (error as Error).message });
    }
  };

  /** Starts one; `onReady` and `onFailed` tell of the first that happens. */
  const start = (onReady: (message: ToParent & { ckv: 'ready' }) => void, onFailed: (reason: string) => void) => {
    const worker = cluster.fork();
    const startedAt = performance.now();
    let reason: string | undefined;
    worker.on('message', (message: unknown) => {
      if (!isOurs<ToParent>(message)) return;
      if (message.ckv === 'metrics?') void answerMetrics(worker, message.id);
      else if (message.ckv === 'failed') reason = message.message;
      else if (message.ckv === 'made') {
        for (const other of ready) if (other !== worker) tell(other, message);
      } else {
        ready.add(worker);
        onReady(message);
      }
    });
    worker.on('exit', (code, signal) => {
      const served = ready.delete(worker);
      if (stopping || (initial && !served)) {
        onFailed(reason ?? `a worker exited with ${signal ?? `code ${code}`} before it was ready`);
        return;
      }
      deaths = performance.now() - startedAt > STEADY_MS ? 0 : deaths;
      const waitMs = restartWaitMs(deaths);
      deaths++;
      restarts.inc();
      logger.error(
        { worker: worker.process.pid, code, signal, reason, wait_ms: waitMs },
        'a worker ended; starting another',
      );
      const timer = setTimeout(() => {
        timers.delete(timer);
        start(
          () => {},
          () => {},
        );
      }, waitMs);
      timers.add(timer);
    });
  };

  let initial = true;
  const one = () =>
    new Promise<ToParent & { ckv: 'ready' }>((resolve, reject) => {
      start(resolve, (reason) => reject(new Error(reason)));
    });
  const left = () => Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined);
  const stop = async (graceMs: number) => {
    stopping = true;
    for (const timer of timers) clearTimeout(timer);
    const ended = left().map((worker) => new Promise<void>((resolve) => worker.once('exit', () => resolve())));
    for (const worker of left()) tell(worker, { ckv: 'stop' });
    const timer = setTimeout(() => {
      logger.warn({ workers: left().length }, 'workers did not stop in time; killing them');
      for (const worker of left()) worker.process.kill('SIGKILL');
    }, graceMs);
    await Promise.all(ended);
    clearTimeout(timer);
  };

  try {
    // The first alone: what is wrong for one is wrong for all, and is to be said once.
    const { url, metricsUrl } = await one();
    await Promise.all(Array.from({ length: count - 1 }, one));
    initial = false;
    logger.info({ url, metrics_url: metricsUrl, workers: count }, 'workers are listening');
  } catch (error) {
    await stop(0);
    throw error;
  }
  return {
    reload() {
      // Those that are starting, too: they may have read the file before it changed.
      for (const worker of left()) tell(worker, { ckv: 'reload' });
    },
    stop,
  };
}
