import { BEHAVIOURS, type Behaviour, EVENTS, LARGE_BYTES } from './behaviours.ts';
import type { Body } from './bodies.ts';
import type { End, Ended } from './client.ts';
import { type KeyName, planOf } from './keys.ts';

/** Errors that the gateway may give to any request, by design: too many want a place. */
const SHED: ReadonlySet<string> = new Set(['gateway_queue_full', 'gateway_queue_timeout']);
const LIMITED = 'gateway_rate_limited';
/** What any request may get that came to the address which refuses, when the budget of retries was used up. */
const UNREACHABLE = 'gateway_upstream_unreachable';
const USAGE = /^data: .*"usage":\{/gm;
/** What the gateway puts into a body: ids and options. */
const ADDED_BYTES = 400;

export type Verdict = 'good' | 'limited' | 'unreachable' | { problem: string };

/** Whether a request ended as it should. */
export function verdictOf(key: KeyName, behaviour: Behaviour, body: Body, end: Ended): Verdict {
  const plan = planOf(key);
  const seen = `${end.status} ${end.kind}`;
  const type = end.status < 400 ? undefined : errorType(end.text);
  const problem = (what: string) => ({ problem: `key ${key}: ${what}` });
  if (plan.grants === undefined) {
    return end.status === 401 && type === 'gateway_invalid_api_key' ? 'good' : problem(`${seen} instead of a 401`);
  }
  if (type === LIMITED) return plan.tight ? 'limited' : problem('was refused by a limit that is far away');
  if (type === UNREACHABLE) return 'unreachable';
  if (type !== undefined && SHED.has(type)) return 'good';
  if (!(BEHAVIOURS[behaviour].expected as readonly string[]).includes(seen)) {
    return problem(`${behaviour} gave ${seen}${type === undefined ? '' : ` (${type})`}`);
  }
  if (end.status !== 200) return 'good';
  if (body.digest !== undefined && !end.text.includes(body.digest)) {
    return problem('an upload was not the same when it arrived');
  }
  const usages = end.text.match(USAGE)?.length ?? 0;
  const wanted = behaviour === 'stream_usage' ? 1 : 0;
  return usages === wanted ? 'good' : problem(`${behaviour} showed ${usages} usages instead of ${wanted}`);
}

/** Tokens that a request counts for: what it reported, or at most what is estimated where it did not come to that. */
export function tokensOf(behaviour: Behaviour, body: Body, end: End): { least: number; most: number } {
  const prompt = Math.ceil((body.length + ADDED_BYTES) / 4);
  // It tells no usage: its bytes count, as far as they came, and those of the prompt.
  const output = behaviour === 'large' ? LARGE_BYTES / 4 : EVENTS + 2;
  const reported = BEHAVIOURS[behaviour].tokens;
  if (end.kind === 'complete') {
    if (end.status !== 200) return { least: 0, most: 0 };
    return behaviour === 'large' ? { least: output, most: output + prompt } : { least: reported, most: reported };
  }
  return { least: 0, most: Math.max(reported, body.digest === undefined ? prompt + output : 0) };
}

function errorType(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { error?: { type?: string } }).error?.type;
  } catch {
    // the upstream's own, such as HTML
    return undefined;
  }
}
