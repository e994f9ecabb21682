import type { TestEvent } from 'node:test/reporters';

/** One finished test, as a line of JSON. */
export interface TestRecord {
  /** The names of its groups and its own, joined by ' > '. */
  name: string;
  result: 'passed' | 'failed' | 'skipped';
  /** The error of a failed test, the reason of a skipped one. */
  detail: string;
}

/** A reporter for node:test that writes one JSON line per test; groups only when they themselves failed. */
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const groups: string[] = [];
  for await (const event of source) {
    if (event.type === 'test:start') {
      groups.length = event.data.nesting;
      groups.push(event.data.name);
    } else if (event.type === 'test:pass' || event.type === 'test:fail') {
      const record = toRecord(event, groups.slice(0, event.data.nesting));
      if (record !== undefined) yield `${JSON.stringify(record)}\n`;
    }
  }
}

function toRecord(
  event: Extract<TestEvent, { type: 'test:pass' | 'test:fail' }>,
  groups: readonly string[],
): TestRecord | undefined {
  const { data } = event;
  const name = [...groups, data.name].join(' > ');
  if (data.skip !== undefined) return { name, result: 'skipped', detail: reason(data.skip, 'skipped') };
  if (data.todo !== undefined) return { name, result: 'skipped', detail: reason(data.todo, 'not written yet') };
  const isGroup = data.details.type === 'suite';
  if (event.type === 'test:pass') return isGroup ? undefined : { name, result: 'passed', detail: '' };
  const error = event.data.details.error as Error & { failureType?: string };
  // The inner tests have said so already.
  if (error.failureType === 'subtestsFailed') return undefined;
  return { name, result: 'failed', detail: describe(error) };
}

const reason = (value: boolean | string, fallback: string) => (typeof value === 'string' ? value : fallback);

function describe(error: Error): string {
  const cause = error.cause;
  if (cause instanceof Error) return cause.stack ?? cause.message;
  return cause === undefined ? (error.stack ?? error.message) : String(cause);
}
