import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { runCommandLine } from './command-line.ts';
import { ROOT } from './processes.ts';

/** A program that makes files of the repository from other files of it. */
export interface Generator {
  name: string;
  /** What it makes, for the help. */
  about: string;
  /** Files by their paths below the repository. */
  make(): Promise<ReadonlyMap<string, string | Uint8Array>>;
}

/** Writes the files; with `--check` it compares instead, and fails when one is stale. */
export async function runGenerator({ name, about, make }: Generator): Promise<void> {
  await runCommandLine({
    name,
    about,
    options: { check: { type: 'boolean', default: false, help: 'write nothing, and fail when a file is stale' } },
    async run({ check }) {
      let code = 0;
      for (const [path, content] of await make()) {
        const file = join(ROOT, path);
        if (!check) {
          mkdirSync(dirname(file), { recursive: true });
          writeFileSync(file, content);
        } else if (!contentOf(file).equals(Buffer.from(content))) {
          process.stderr.write(`${relative(ROOT, file)} is stale: run make gen\n`);
          code = 1;
        }
      }
      return code;
    },
  });
}

/** Empty when there is no such file. */
function contentOf(file: string): Buffer {
  return existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
}
