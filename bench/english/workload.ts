import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { makeStory, type Story, THINK_END } from '../../model/english/story.ts';
import { createRandom } from '../../model/random.ts';

/** Seeds from here on are for figures to be reported; those below, down to `FIRST`, for choosing; those below that, for training. */
const REPORTED = 2 ** 30;
const FIRST = 1_000_000;

/** The seed of stories for a seed of a bench. No seed for tuning gives one that is reported, or one of the training. */
export const storySeed = (seed: number, tuning: boolean): number =>
  tuning ? FIRST + (seed % (REPORTED - FIRST)) : REPORTED + (seed % REPORTED);

export function makeStories(seed: number, count: number, people: number): Story[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, () => makeStory(random, people));
}

/** Token ids of stories for a model folder. */
export interface StoryTokens {
  prompt(story: Story): number[];
  /** What stands after the end of thinking in generated tokens; undefined: there is none. */
  content(tokens: readonly number[]): string | undefined;
  /** A model that does not end may write so many tokens: a fifth and 32 more than the longest right text has. */
  limit(stories: readonly Story[]): number;
}

const SPARE_TOKENS = 32;

export function storyTokens(folder: string): StoryTokens {
  const tokenizer = loadTokenizer(folder);
  const written = ({ reasoning, answer }: Story) => tokenizer.encode(reasoning + THINK_END + answer, false).length;
  return {
    prompt: ({ messages }) => tokenizer.encodeChat(messages, { add_generation_prompt: true }),
    content: (tokens) => {
      const end = tokens.indexOf(tokenizer.thinkEndId ?? -1);
      return end < 0 ? undefined : tokenizer.decode(tokens.slice(end + 1), true);
    },
    limit: (stories) => Math.ceil(1.2 * Math.max(...stories.map(written))) + SPARE_TOKENS,
  };
}
