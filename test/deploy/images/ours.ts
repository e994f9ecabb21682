import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../../../scripts/processes.ts';
import { parseDockerfile } from './dockerfile.ts';
import type { Builder } from './image.ts';

/** A builder for deploy/Dockerfile in an empty folder; the base image is the Node that runs the tests. */
export function ourBuilder(): Builder & { close(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-images-'));
  chmodSync(folder, 0o755);
  return {
    folder,
    stages: parseDockerfile(readFileSync(join(ROOT, 'deploy/Dockerfile'), 'utf8')),
    built: new Map(),
    base(from, root) {
      const wanted = /^node:([\d.]+)-slim$/.exec(from)?.[1];
      if (wanted !== process.versions.node)
        throw new Error(`${from} is not the Node that is pinned, ${process.version}`);
      const programs = join(root, 'usr/local/bin');
      mkdirSync(programs, { recursive: true });
      cpSync(process.execPath, join(programs, 'node'), { dereference: true });
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}
