import type { Steps } from './scan.ts';

/** Work that is under way; `step` does a bit of it and tells whether that was the last. */
interface Job {
  step(): 'more' | 'done';
}

const jobs: Job[] = [];

/**
 * Takes the steps one at a time, so that everything else of this process has its turn between two. All that is under way
 * takes turns: each turn of the event loop has one step, however many bodies there are. Rejects with what a step throws.
 */
export function inTurns<T>(steps: Steps<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const step = () => {
      try {
        const { done, value } = steps.next();
        if (done !== true) return 'more';
        resolve(value);
      } catch (error) {
        reject(error);
      }
      return 'done';
    };
    jobs.push({ step });
    if (jobs.length === 1) setImmediate(takeTurn);
  });
}

function takeTurn(): void {
  const [job] = jobs;
  if (job === undefined) return;
  const end = job.step();
  jobs.shift();
  if (end === 'more') jobs.push(job);
  if (jobs.length > 0) setImmediate(takeTurn);
}
