import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../processes.ts';
import { lastLines, runCommand } from './command.ts';
import { failure, type Note, type Outcome, type Say } from './outcome.ts';

const LOCK = join(ROOT, 'scripts/python-requirements.txt');
const OLDEST = [3, 11] as const;
const CANDIDATES = ['python3', 'python3.14', 'python3.13', 'python3.12', 'python3.11', 'python'];
const INSTALL_TIMEOUT_MS = 600_000;

/** The Python environment of the tests cannot be made; the message says what is missing. */
export class PythonError extends Error {
  override readonly name = 'PythonError';
}

/**
 * The interpreter of an environment that holds exactly what the lock file names, made when it is not there yet. It is
 * kept in `$XDG_CACHE_HOME/crystal-kv`, one for each content of the lock file. Throws PythonError.
 */
export async function pythonEnvironment(say: Say, lock = LOCK): Promise<string> {
  const hash = createHash('sha256').update(readFileSync(lock)).digest('hex').slice(0, 12);
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const folder = join(cache, 'crystal-kv', `py-${hash}`);
  const python = join(folder, 'bin/python');
  const complete = join(folder, '.complete');
  if (existsSync(complete)) return python;
  const system = await findPython();
  say(`making the Python environment ${folder}`);
  rmSync(folder, { recursive: true, force: true });
  const hasUv = (await runCommand('uv', ['--version'])).code === 0;
  if (hasUv) {
    await install('uv', ['venv', '--quiet', '--python', system, folder]);
    await install('uv', ['pip', 'install', '--quiet', '--python', python, '--requirement', lock]);
  } else {
    await install(system, ['-m', 'venv', folder]);
    await install(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--requirement', lock]);
  }
  writeFileSync(complete, '');
  return python;
}

async function install(command: string, args: readonly string[]): Promise<void> {
  const result = await runCommand(command, args, { timeoutMs: INSTALL_TIMEOUT_MS });
  if (result.code === 0) return;
  throw new PythonError(`${[command, ...args].join(' ')} failed:\n${lastLines(result.output)}`);
}

/** The first interpreter that is new enough; `PYTHON` names one to take before all others. */
async function findPython(): Promise<string> {
  const seen: string[] = [];
  const named = process.env['PYTHON'];
  for (const command of named === undefined ? CANDIDATES : [named]) {
    const result = await runCommand(command, ['-c', 'import sys; print(sys.executable, *sys.version_info[:2])']);
    const [path, major, minor] = result.output.trim().split(' ');
    if (result.code !== 0 || path === undefined) continue;
    if (Number(major) === OLDEST[0] && Number(minor) >= OLDEST[1]) return path;
    seen.push(`${path} is ${major}.${minor}`);
  }
  const found = seen.length === 0 ? 'found none' : `found ${seen.join(', ')}`;
  throw new PythonError(`Python ${OLDEST.join('.')} or newer is needed for the tests; ${found}`);
}

/** Runs pytest in a folder and counts what it ran. */
export async function runPytest(python: string, cwd: string, timeoutMs: number): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-pytest-'));
  const report = join(folder, 'report.xml');
  const args = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', `--junitxml=${report}`];
  try {
    const result = await runCommand(python, args, { cwd, timeoutMs });
    const xml = existsSync(report) ? readFileSync(report, 'utf8') : '';
    const outcome = readJunit(xml);
    const [first, ...rest] = outcome.failed;
    if (first !== undefined) return { ...outcome, failed: [{ ...first, detail: lastLines(result.output) }, ...rest] };
    // 5: no test was collected. The caller counts an empty suite as a failure.
    if (result.code === 0 || result.code === 5) return outcome;
    return failure('pytest', `ended with code ${result.code ?? 'none'}\n${lastLines(result.output)}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Counts the test cases of a JUnit report as pytest writes it. */
export function readJunit(xml: string): Outcome {
  const failed: Note[] = [];
  const skipped: Note[] = [];
  let passed = 0;
  for (const match of xml.matchAll(/<testcase ([^>]*?)(?:\/>|>(.*?)<\/testcase>)/gs)) {
    const [, attributes = '', body = ''] = match;
    const name = `${attribute(attributes, 'classname')}: ${attribute(attributes, 'name')}`;
    const problem = /<(failure|error|skipped)\b([^>]*)>/.exec(body);
    if (problem === null) passed += 1;
    else if (problem[1] === 'skipped') skipped.push({ name, detail: attribute(problem[2] ?? '', 'message') });
    else failed.push({ name, detail: attribute(problem[2] ?? '', 'message') });
  }
  return { passed, failed, skipped };
}

const attribute = (text: string, name: string): string => new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1] ?? '';
