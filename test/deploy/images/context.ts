import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The files of a folder that `.dockerignore` lets through to a build, relative to it: the last pattern that matches wins. */
export function contextFiles(folder: string): string[] {
  const patterns = readFileSync(join(folder, '.dockerignore'), 'utf8')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({ include: line.startsWith('!'), regex: toRegex(line.replace(/^!/, '')), text: line.slice(1) }));
  const included = (path: string) => patterns.findLast(({ regex }) => regex.test(path))?.include ?? true;
  /** Whether something below an excluded folder may come back. */
  const mayReturn = (path: string) => patterns.some(({ include, text }) => include && text.startsWith(`${path}/`));

  const files: string[] = [];
  const walk = (path: string) => {
    for (const entry of readdirSync(join(folder, path), { withFileTypes: true })) {
      const child = path === '' ? entry.name : `${path}/${entry.name}`;
      if (entry.isDirectory()) {
        if (included(child) || mayReturn(child)) walk(child);
      } else if (included(child)) files.push(child);
    }
  };
  walk('');
  return files;
}

/** A pattern matches a path, and everything below it. */
function toRegex(pattern: string): RegExp {
  const body = pattern
    .replaceAll(/[.+^$()|[\]{}\\]/g, '\\$&')
    .replaceAll('**/', '\u0001')
    .replaceAll('*', '[^/]*')
    .replaceAll('\u0001', '(?:.*/)?');
  return new RegExp(`^${body}(?:/.*)?$`);
}
