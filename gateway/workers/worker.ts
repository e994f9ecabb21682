import cluster from 'node:cluster';
import { AggregatorRegistry, Registry } from 'prom-client';
import type { MetricsSource } from '../../common/http.ts';
import type { LocalResponseIds, ResponseIds } from '../fleet/response-ids.ts';
import { isOurs, type ToParent, type ToWorker } from './messages.ts';

/** What a gateway does when it is one of several processes on one port. */
export interface WorkerRole {
  /** Resolves when the parent says so. */
  readonly stopped: Promise<void>;
  /** The metrics of all workers together. */
  metrics(own: Registry): MetricsSource;
  /** What `own` remembers, and what the other workers see being made. */
  responseIds(own: LocalResponseIds): ResponseIds;
  ready(url: string, metricsUrl: string): void;
  failed(error: Error): void;
}

/** Longer than prom-client waits for a worker. */
const ANSWER_MS = 6_000;

/**
 * The worker's end of the channel to its parent; undefined in a process that is nobody's worker. To
 * read the configuration again arrives as the SIGHUP that a gateway alone would get.
 */
export function workerRole(): WorkerRole | undefined {
  if (!cluster.isWorker) return undefined;
  const waiting = new Map<number, { resolve: (text: string) => void; reject: (error: Error) => void }>();
  let asked = 0;
  // Answers the parent's questions for this worker's share; with nothing until there is something.
  AggregatorRegistry.setRegistries([]);
  new AggregatorRegistry();
  let others: LocalResponseIds | undefined;
  let onStop = () => {};
  const stopped = new Promise<void>((resolve) => {
    onStop = resolve;
  });
  const say = (message: ToParent) => process.send?.(message);

  process.on('message', (message: unknown) => {
    if (!isOurs<ToWorker>(message)) return;
    if (message.ckv === 'stop') {
      onStop();
    } else if (message.ckv === 'reload') {
      process.emit('SIGHUP', 'SIGHUP');
    } else if (message.ckv === 'made') {
      others?.remember(message.id, message.made);
    } else {
      const answer = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.ckv === 'metrics') answer?.resolve(message.text);
      else answer?.reject(new Error(message.message));
    }
  });

  return {
    stopped,
    metrics(own) {
      AggregatorRegistry.setRegistries([own]);
      return {
        contentType: Registry.PROMETHEUS_CONTENT_TYPE,
        metrics() {
          const id = asked++;
          return new Promise((resolve, reject) => {
            const timer = setTimeout(() => {
              waiting.delete(id);
              reject(new Error(`no metrics from the parent process within ${ANSWER_MS} ms`));
            }, ANSWER_MS);
            waiting.set(id, {
              resolve(text) {
                clearTimeout(timer);
                resolve(text);
              },
              reject(error) {
                clearTimeout(timer);
                reject(error);
              },
            });
            say({ ckv: 'metrics?', id });
          });
        },
      };
    },
    responseIds(own) {
      others = own;
      return {
        remember(id, made) {
          own.remember(id, made);
          say({ ckv: 'made', id, made });
        },
        find: (id) => own.find(id),
      };
    },
    ready: (url, metricsUrl) => void say({ ckv: 'ready', url, metricsUrl }),
    failed: (error) => void say({ ckv: 'failed', message: error.message }),
  };
}
