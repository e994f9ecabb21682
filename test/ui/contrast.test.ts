import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const CSS = readFileSync(fileURLToPath(new URL('../../gateway/ui/page/style.css', import.meta.url)), 'utf8');
const [light = '', dark = ''] = CSS.split('@media (prefers-color-scheme: dark)');
/** What is seen on the page: text, and marks without which something could not be told. */
const TEXTS = ['text', 'muted', 'faded', 'accent', 'bad'];
const MARKS = ['full', 'edge', 'prompt', 'hole', 'unranked', 'v0', 'v1', 'v2', 'v3', 'v4'];

for (const [name, block] of [
  ['light', light],
  ['dark', dark.slice(0, dark.indexOf('\n}\n'))],
] as const) {
  test(`${name}: texts have a contrast of 4.5 to the page, marks of 3`, () => {
    const colours = new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, key, value]) => [key, value]));
    const page = colours.get('page') ?? '';
    for (const [least, marks] of [
      [4.5, TEXTS],
      [3, MARKS],
    ] as const) {
      for (const mark of marks) {
        const found = contrast(colours.get(mark) ?? page, page);
        assert.ok(found >= least, `--${mark} has ${found.toFixed(2)} on --page`);
      }
    }
  });
}

/** WCAG 2.2, of two colours as #rrggbb. */
function contrast(a: string, b: string): number {
  const [darker = 0, lighter = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (lighter + 0.05) / (darker + 0.05);
}

function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
