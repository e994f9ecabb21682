import type { RequestRecord } from '../observe/record.ts';
import type { UpstreamRequest } from '../request/upstream-request.ts';
import type { Route } from '../routes.ts';
import type { ThinkingConfig } from './config.ts';
import { createThinkingGuard, type ThinkingGuard } from './guard.ts';

/** Watches how streams think, where someone wants that. */
export interface Thinking {
  /** Undefined: nothing bounds the thinking of this response, or it is no stream. */
  guardFor(route: Route, record: RequestRecord, sent: UpstreamRequest): ThinkingGuard | undefined;
}

export function createThinking(config: () => ThinkingConfig): Thinking {
  return {
    guardFor({ form, body }, { key }, { stream, profile, usageShown }) {
      if (!stream || body !== 'generation') return undefined;
      const { stop_repeating, max_thinking_tokens } = config();
      const limits = [key?.max_thinking_tokens, profile === undefined ? undefined : max_thinking_tokens[profile]];
      const known = limits.filter((limit) => limit !== undefined);
      if (known.length === 0 && !stop_repeating) return undefined;
      const most = known.length === 0 ? undefined : Math.min(...known);
      return createThinkingGuard(form, usageShown, { most, stopsRepeating: stop_repeating });
    },
  };
}
