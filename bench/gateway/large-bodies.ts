import { MODEL } from './shapes.ts';

/** A body of a chat completion, of which one part is repeated until it is long. */
interface Shape {
  start: string;
  part: string;
  end: string;
}

/** Shapes that take long to read in one way or another; most are refused. */
const SHAPES: readonly Shape[] = [
  { start: `{"model":"${MODEL}","messages":[{"role":"user","content":"`, part: 'a long prompt ', end: '"}]}' },
  { start: '{"model":[', part: '[],', end: '0]}' },
  { start: `{"model":"${MODEL}","crystal_kv":{`, part: '"a":1,', end: '"b":1}}' },
  { start: `{"model":"${MODEL}","prompt":[`, part: '1,', end: '1]}' },
  { start: '{', part: '\n', end: '?' },
];

export const LARGE_SHAPES = SHAPES.length;

/** One after the other: together they would take much memory. */
export function* largeBodies(bytes: number): Generator<string> {
  for (const { start, part, end } of SHAPES) {
    yield start + part.repeat(Math.floor((bytes - start.length - end.length) / part.length)) + end;
  }
}
