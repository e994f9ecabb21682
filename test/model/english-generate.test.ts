import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { makeStory } from '../../model/english/story.ts';
import { PIECE_KINDS } from '../../model/english/thinking.ts';

const script = fileURLToPath(new URL('../../model/english/generate.ts', import.meta.url));
const generate = async (...options: string[]) =>
  (await promisify(execFile)(process.execPath, [script, ...options])).stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('generate.ts of the English model', () => {
  it('prints stories of one stream', async () => {
    const stories = await generate('--people', '5', '--count', '3', '--seed', '9');
    assert.equal(stories.length, 3);
    assert.deepEqual(stories[0], JSON.parse(JSON.stringify(makeStory(9, 5))));
    assert.equal(new Set(stories.map(({ prompt }) => prompt)).size, 3);
  });

  it('prints the text alone, sums, and the kinds of pieces', async () => {
    assert.deepEqual(Object.keys((await generate('--text'))[0]), ['prompt', 'reasoning', 'answer']);
    const [drill] = await generate('--sums', '2');
    assert.equal(drill.messages[0].content, 'Do 2 sums.');
    assert.deepEqual(await generate('--kinds'), [PIECE_KINDS]);
  });

  it('names an option that is out of bounds, with its value', async () => {
    for (const [option, value] of [
      ['--people', '0'],
      ['--seed', '-1'],
      ['--sums', '201'],
      ['--count', 'x'],
    ] as const) {
      await assert.rejects(generate(`${option}=${value}`), (error: { code: number; stderr: string }) => {
        assert.equal(error.code, 2);
        assert.match(error.stderr, new RegExp(`^generate: ${option} must be an integer between [01] and `));
        return true;
      });
    }
  });
});
