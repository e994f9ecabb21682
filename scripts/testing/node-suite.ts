import { globSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ROOT } from '../processes.ts';
import { type CommandResult, indent, lastLines, runCommand } from './command.ts';
import { count, failure, type Note, type Outcome, type Say, sum } from './outcome.ts';
import type { TestRecord } from './reporter.ts';

const REPORTER = new URL('./reporter.ts', import.meta.url).href;

export interface NodeSuiteOptions {
  /** Folder that holds `*.test.ts` files, relative to the root. */
  folder: string;
  /** Files that run at the same time. */
  concurrency: number;
  /** A file in which no test has ended for so long is ended, and fails. */
  patienceMs: number;
}

/** Runs every test file below a folder, each in a process of its own. A folder or file without a test fails. */
export async function runNodeSuite(options: NodeSuiteOptions, say: Say): Promise<Outcome> {
  const files = globSync('**/*.test.ts', { cwd: resolve(ROOT, options.folder) }).sort();
  const reports = mkdtempSync(join(tmpdir(), 'crystal-kv-tests-'));
  const outcomes: Outcome[] = [];
  const queue = [...files.entries()];
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, file] = next;
      const started = performance.now();
      const outcome = await runFile(join(options.folder, file), join(reports, `${index}.jsonl`), options.patienceMs);
      outcomes.push(outcome);
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      say(`${file}  ${describeCounts(outcome)}  ${seconds} s`);
      for (const note of outcome.failed) say(`  failed: ${note.name}`);
      for (const note of outcome.skipped) say(`  skipped: ${note.name}: ${note.detail}`);
    }
  };
  try {
    await Promise.all(Array.from({ length: options.concurrency }, work));
  } finally {
    rmSync(reports, { recursive: true, force: true });
  }
  return sum(outcomes);
}

async function runFile(file: string, report: string, patienceMs: number): Promise<Outcome> {
  const result = await runCommand(
    process.execPath,
    [`--test-reporter=${REPORTER}`, `--test-reporter-destination=${report}`, file],
    { timeoutMs: patienceMs, progress: () => statSync(report, { throwIfNoEntry: false })?.size },
  );
  return readReport(file, result, readRecords(report));
}

/** What one file's records and the end of its process say together. */
export function readReport(file: string, result: CommandResult, records: readonly TestRecord[]): Outcome {
  const notes = (kind: TestRecord['result']): Note[] =>
    records
      .filter((record) => record.result === kind)
      .map((record) => ({ name: `${file}: ${record.name}`, detail: record.detail }));
  const outcome: Outcome = {
    passed: records.filter((record) => record.result === 'passed').length,
    failed: notes('failed'),
    skipped: notes('skipped'),
  };
  const ended = result.timedOut
    ? 'did not end in time: a test hangs, or something it started was not closed'
    : `ended with code ${result.code ?? 'none'}`;
  if (result.timedOut || (result.code !== 0 && outcome.failed.length === 0)) {
    return sum([outcome, failure(file, `${ended}\n${lastLines(result.output)}`)]);
  }
  if (count(outcome) === 0) return failure(file, `the file ran no test\n${lastLines(result.output)}`);
  return { ...outcome, failed: outcome.failed.map((note, index) => (index === 0 ? withOutput(note, result) : note)) };
}

/** What a file printed is shown once, with its first failure. */
function withOutput(note: Note, result: CommandResult): Note {
  if (result.output.trim() === '') return note;
  const printed = indent({ name: 'printed by the file:', detail: lastLines(result.output) });
  return { name: note.name, detail: `${note.detail}\n${printed}` };
}

function readRecords(report: string): TestRecord[] {
  let text: string;
  try {
    text = readFileSync(report, 'utf8');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as TestRecord);
}

function describeCounts(outcome: Outcome): string {
  const parts = [`${outcome.passed} passed`];
  if (outcome.failed.length > 0) parts.push(`${outcome.failed.length} failed`);
  if (outcome.skipped.length > 0) parts.push(`${outcome.skipped.length} skipped`);
  return parts.join(', ');
}
