import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../processes.ts';
import { checkCommand } from './command.ts';
import { failure, type Outcome, PASSED } from './outcome.ts';

const NAME = 'proto/gen is what the protocol gives';

/** Generates the protocol's code once more, elsewhere, and compares it with the committed files. */
export async function checkGeneratedProtocol(): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-proto-'));
  try {
    const made = await checkCommand(NAME, 'buf', ['generate', '--output', folder]);
    if (made.failed.length > 0) return made;
    const differences = compareFolders(join(ROOT, 'proto/gen'), join(folder, 'proto/gen'));
    return differences.length === 0 ? PASSED : failure(NAME, `run make gen; stale are\n${differences.join('\n')}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The files that are missing on one side or differ, relative to the folders. */
export function compareFolders(left: string, right: string): string[] {
  const files = (folder: string) => globSync('**/*', { cwd: folder, withFileTypes: true }).filter((it) => it.isFile());
  const names = (folder: string) => files(folder).map((it) => join(it.parentPath, it.name).slice(folder.length + 1));
  const [inLeft, inRight] = [new Set(names(left)), new Set(names(right))];
  return [...new Set([...inLeft, ...inRight])]
    .filter((name) => {
      if (!inLeft.has(name) || !inRight.has(name)) return true;
      return !readFileSync(join(left, name)).equals(readFileSync(join(right, name)));
    })
    .sort();
}
