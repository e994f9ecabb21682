import { z } from 'zod';

/** An integer; the message names the bounds. */
export function whole(min: number, max: number) {
  return z.int(`must be an integer from ${min} to ${max}`).min(min).max(max);
}

/** A share, 0 to 1. */
export function share() {
  return z.number('must be a number from 0 to 1').min(0).max(1);
}
