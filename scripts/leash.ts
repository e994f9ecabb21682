import { isMainThread } from 'node:worker_threads';

/**
 * Loaded into a child process before its program (`node --import`): when the channel to the parent breaks, because the
 * parent is gone however it ended, the child stops as if it had been asked to. So no run leaves a process behind.
 */
if (isMainThread && process.channel !== undefined) {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  // The channel alone does not keep the program alive.
  process.channel?.unref();
}
