import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockFacts, cellsOf, describe } from '../../gateway/ui/page/cells.js';
import { readEvents } from '../../gateway/ui/page/events.js';
import { Frames, frameOf } from '../../gateway/ui/page/frames.js';
import { groupsOf, holds, inkOf, shareOf } from '../../gateway/ui/page/held.js';
import { Playhead } from '../../gateway/ui/page/playhead.js';
import { Transcript } from '../../gateway/ui/page/transcript.js';
import { amount, verdict } from '../../gateway/ui/page/verdict.js';

/** Ten blocks: two of prompt, a hole at 3, the last two newest. */
function frame(changes: object = {}) {
  const keep = Buffer.from([0b11110111, 0b11]).toString('base64');
  const values = [9, 9, 0.1, 0.5, 0.2, 0.2, 0.4, 0.3, 9, 9];
  const request = {
    ...{ engineId: 'e', handle: 1, id: 'abc', choice: 0, promptTokens: 32, tokens: 155, phase: 2, profile: 'p' },
    ...{ policy: 'crystal', mode: 1, blocks: 10, resident: 9, evicted: 1, peak: 10, keep, values, from: 2, to: 8 },
    ...{ probe: [0, 0, 0, 0.5, 0, 0, 0.3, 0.05, 0, 0], probes: 1, probeTokens: 7, cold: false, ended: false },
    ...{ hits: [0, 0, 0, 2, 0, 0, 1, 0, 0, 0], lastHit: [0, 0, 0, 90, 0, 0, 150, 0, 0, 0], ...changes },
  };
  return frameOf(request, 0, 16);
}

test('cells say what a block is, in which order it would leave, and whether a probe read it', () => {
  const cells = cellsOf(frame());
  const kinds = cells.map(({ kind }) => kind);
  assert.deepEqual(kinds, [
    ...['prompt', 'prompt', 'kept', 'hole', 'kept', 'kept', 'kept', 'kept', 'newest', 'newest'],
  ]);
  const level = (block: number) => cells[block]?.level ?? -1;
  assert.ok(level(2) < level(4) && level(4) === level(5) && level(5) < level(7) && level(7) < level(6));
  assert.deepEqual(
    cells.flatMap(({ pick }, block) => (pick ? [block] : [])),
    [6],
    'a hole is no pick, and neither is a little attention',
  );
});

test('equal values all have the middle colour', () => {
  const cells = cellsOf(frame({ values: new Array(10).fill(1) }));
  assert.deepEqual(new Set(cells.filter(({ kind }) => kind === 'kept').map(({ level }) => level)), new Set([2]));
});

test('blocks and rows are told in words', () => {
  assert.match(describe(frame()), /^blocks 0 to 1 question; block 2 kept; block 3 given back; .*trial answers: 6\.$/);
  assert.match(
    blockFacts(frame(), 6).join(),
    /tokens 96 to 111,kept: 4 of 4 other blocks.*read at 1 measured step, last 5 tokens ago.*30 %/,
  );
  assert.match(
    blockFacts(frame(), 3).join(),
    /its memory was given back.*read at 2 measured steps, last 65 tokens ago/,
  );
  assert.match(blockFacts(frame(), 9).join(), /tokens 144 to 154,among the newest/);
});

test('a token has as much ink as heads hold it; without a report, as its block is there', () => {
  assert.deepEqual(
    [40, 50, 70, 160].map((position) => shareOf(frame(), position)),
    [255, 0, 255, 255],
  );
  const base64 = (...bytes: number[]) => Buffer.from(bytes).toString('base64');
  const told = frame({ held: { from: 48, shares: base64(0, 85, 255), groups: base64(0b100, 0b110, 0b100) } });
  assert.deepEqual(
    [47, 48, 49, 50, 51].map((position) => shareOf(told, position)),
    [255, 0, 85, 255, 255],
  );
  assert.deepEqual([0, 1, 85, 254, 255].map(inkOf), [0, 1, 2, 6, 7]);
  assert.equal(groupsOf(told), 3);
  assert.ok(told.held !== undefined);
  assert.deepEqual(
    [48, 49, 50, 51].map((position) => holds(told.held!, 1, position)),
    [false, true, true, true],
  );
  assert.match(blockFacts(told, 3).join(), /its memory was given back; 90 % of its tokens live on in other blocks/);
});

test('the sentence that matters is honest, and comes from the state that it is given', () => {
  const facts = { over: true, expected: 'right', bytesPerBlock: 1024 };
  const told = (answer: string, resident = 10, state = 'done') =>
    ({ state, error: 'the reason', answer, frame: frame({ resident }) }) as Parameters<typeof verdict>[0][number];
  const headline = (...parameters: Parameters<typeof verdict>) =>
    verdict(...parameters).headline.replaceAll('\u00a0', ' ');
  assert.equal(headline([told('right'), told('right', 4)], facts), 'Same answer, 60 % less memory');
  assert.equal(headline([told('right'), told('wrong', 4)], facts), 'Not the same answer, 60 % less memory');
  assert.equal(headline([told('wrong'), told('right', 4)], facts), 'Another answer, the right one, 60 % less memory');
  assert.match(verdict([told('wrong'), told('wrong', 4)], facts).detail, /^The model gets this one wrong with all/);
  assert.equal(headline([told('right'), told('right')], facts), 'Same answer, no memory saved');
  assert.equal(headline([told('wrong', 4)], facts), 'Wrong answer, 60 % less memory');
  assert.equal(headline([told('', 4)], { ...facts, over: false }), 'Thinking with 60 % less memory');
  assert.deepEqual(verdict([told(''), told('', 4, 'failed')], facts), {
    headline: 'It failed',
    detail: 'the reason',
    tone: 'bad',
  });
  assert.equal(
    verdict([told('right', 4)], facts).detail.replaceAll('\u00a0', ' '),
    '4 KiB of memory instead of 10 KiB. Room for 2.5 times as many such requests.',
  );
  const watched = { ...told('right'), frame: frame({ shadow: { blocks: 4, steps: 9, missed: 0.091 } }) };
  assert.equal(headline([told('right'), watched], facts), 'It would have saved 40 % of the memory');
  assert.equal(
    verdict([told('right'), watched], facts).detail.replaceAll('\u00a0', ' '),
    'This policy lets nothing go. What it would have let go got 9 % of the attention.',
  );
  watched.frame = frame({ shadow: { blocks: 0, steps: 0, missed: 0 } });
  assert.match(verdict([watched], { ...facts, over: false }).detail, /not measured yet/);
  assert.equal(amount(1024 ** 2 * 150), '150\u00a0MiB');
});

test('positions have the text that stands there; what is not exact says so', () => {
  const transcript = new Transcript();
  transcript.setPrompt(3, ['<bos>', 'a', 'b']);
  transcript.add('one', 'reasoning', 1);
  transcript.add(' two', 'reasoning', 1);
  transcript.add('', 'reasoning', 1);
  transcript.add('42', 'content', 1);
  assert.equal(transcript.text(1, 5), 'a b one two');
  assert.equal(transcript.generatedText(0, 4, 'content'), '42');
  assert.equal(transcript.answerStart, 6);
  assert.equal(transcript.approximate, false);
  transcript.add('abcd', 'content', 2);
  assert.equal(transcript.generated, 6);
  assert.equal(transcript.generatedText(4, 5, 'content'), 'ab');
  assert.ok(transcript.approximate);
  const unknown = new Transcript();
  unknown.setPrompt(3, ['only one']);
  assert.equal(unknown.text(0, 3), undefined);
});

test('frames are found by tokens, and their number is bounded', () => {
  const frames = new Frames();
  for (let tokens = 32; tokens < 3_032; tokens += 1) frames.add(frame({ tokens, blocks: Math.ceil(tokens / 16) }));
  assert.ok(frames.all.length <= 1_200);
  assert.equal(frames.last?.tokens, 3_031);
  const found = frames.at(1_000)?.tokens ?? 0;
  assert.ok(found <= 1_032 && found > 1_000, String(found));
  assert.equal(frames.at(-5), frames.all[0]);
});

test('the playhead follows at its pace, stops and starts again', () => {
  const playhead = new Playhead();
  playhead.pace = 100;
  playhead.advance(500, 1_000);
  assert.equal(playhead.shown, 100);
  playhead.jump(300);
  playhead.advance(600, 1_000);
  assert.equal(playhead.shown, 300);
  playhead.toggle();
  playhead.advance(600, 10_000);
  assert.ok(playhead.atEnd);
  playhead.toggle();
  playhead.advance(600, 0);
  assert.equal(playhead.shown, 0, 'from the beginning');
  playhead.pace = 0;
  playhead.advance(700, 1);
  assert.equal(playhead.shown, 700);
});

test('events are read however the bytes are cut', async () => {
  const text = ': hello\n\nevent: state\r\ndata: {"a":1}\r\n\r\ndata: x\ndata: y\n\n';
  for (const size of [1, 3, 7, text.length]) {
    const seen: string[][] = [];
    const pieces = Array.from({ length: Math.ceil(text.length / size) }, (_, i) =>
      text.slice(i * size, (i + 1) * size),
    );
    const body = new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
        controller.close();
      },
    });
    await readEvents(new Response(body), (event: string, data: string) => seen.push([event, data]));
    assert.deepEqual(seen, [
      ['state', '{"a":1}'],
      ['message', 'x\ny'],
    ]);
  }
});
