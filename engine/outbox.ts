import type { Report } from './types.ts';

/** So many steps may wait before the oldest is dropped. This bound and the next are set by the protocol. */
export const MAX_STEPS = 64;
/** So many messages may wait before the stream is closed. */
export const MAX_MESSAGES = 4096;

/**
 * Messages that wait for the stream to the policy service, in order. Only steps are dropped, the oldest first. A step
 * in several messages counts as one and is dropped whole.
 */
export class Outbox {
  #messages: Report[] = [];
  /** Waiting steps, counted by their last messages. */
  #steps = 0;
  droppedSteps = 0;

  /** @returns false when too many messages wait; the message was not queued then */
  put(message: Report): boolean {
    if (message.$case !== 'step') {
      if (this.#messages.length >= MAX_MESSAGES) return false;
    } else if (!message.value.more) {
      if (this.#steps >= MAX_STEPS) this.#dropOldestStep();
      this.#steps += 1;
    }
    this.#messages.push(message);
    return true;
  }

  take(): Report | undefined {
    const message = this.#messages.shift();
    if (message?.$case === 'step' && !message.value.more) this.#steps -= 1;
    return message;
  }

  clear(): void {
    this.#messages = [];
    this.#steps = 0;
  }

  #dropOldestStep(): void {
    let oldest: bigint | undefined;
    this.#messages = this.#messages.filter((message) => {
      if (message.$case !== 'step') return true;
      oldest ??= message.value.step;
      return message.value.step !== oldest;
    });
    this.#steps -= 1;
    this.droppedSteps += 1;
  }
}
