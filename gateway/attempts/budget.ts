/** Retries are a share of the traffic, so that a fleet in trouble does not get a multiple of it. */
export interface RetryBudget {
  /** A request has come in. */
  request(): void;
  /** Whether there may be one more retry; it is counted then. */
  take(): boolean;
}

export interface BudgetSettings {
  /** Retries for each request, 0 to 1. */
  budget_share: number;
  /** Retries within the window that are allowed whatever the traffic. */
  budget_min: number;
}

const WINDOW_MS = 10_000;

/** Counts over the last 10 to 20 seconds: the running window and the one before. */
export function createRetryBudget(settings: () => BudgetSettings, now = () => performance.now()): RetryBudget {
  let startedAt = now();
  let current = { requests: 0, retries: 0 };
  let before = current;

  const roll = () => {
    const windows = Math.floor((now() - startedAt) / WINDOW_MS);
    if (windows === 0) return;
    before = windows === 1 ? current : { requests: 0, retries: 0 };
    current = { requests: 0, retries: 0 };
    startedAt += windows * WINDOW_MS;
  };

  return {
    request() {
      roll();
      current.requests++;
    },
    take() {
      roll();
      const { budget_share, budget_min } = settings();
      const [requests, retries] =
        before === current
          ? [current.requests, current.retries]
          : [current.requests + before.requests, current.retries + before.retries];
      if (retries >= Math.max(budget_min, requests * budget_share)) return false;
      current.retries++;
      return true;
    },
  };
}
