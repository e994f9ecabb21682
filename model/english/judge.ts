import type { Story } from './story.ts';

/** How an answer compares with the story's. */
export interface Judgement {
  /** Whether the answer is the right text, but for spaces and line ends around it. */
  readonly exact: boolean;
  /** For every question of the story, whether the answer gives its count; one that gives several counts is wrong. */
  readonly right: readonly boolean[];
}

/** Judges what a model wrote after its thinking. Never throws: text that is no answer is a wrong one. */
export function judge(story: Story, content: string): Judgement {
  const counts = new Map<string, string[]>();
  for (const part of content.trim().split('; ')) {
    const [, name, count] = /^([^:]+): (.+)$/s.exec(part) ?? [];
    if (name !== undefined && count !== undefined) counts.set(name, [...(counts.get(name) ?? []), count]);
  }
  return {
    exact: content.trim() === story.answer,
    right: story.questions.map(({ name, count }) => counts.get(name)?.join() === String(count)),
  };
}
