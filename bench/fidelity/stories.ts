import type { ChatTokenizer } from '../../engine/http/tokenizer.ts';
import { makeStory } from '../../model/english/story.ts';
import { createRandom } from '../../model/random.ts';
import type { Speaker } from './speaker.ts';
import { type Text, THINK_END, withFacts } from './texts.ts';

const PEOPLE = 16;
/** The longest thinking and answer of stories of so many people. */
export const STORY_TOKENS = 1100;
/** Stories for measurements: training uses seeds below. */
const FIRST_SEED = 1_000_000;

/** Stories of which the English model thought aloud, by itself; those that it ends with an answer. */
export async function writeStories(
  speaker: Speaker,
  tokenizer: ChatTokenizer,
  count: number,
  seed: number,
): Promise<Text[]> {
  const random = createRandom(seed);
  const prompts = Array.from({ length: count }, (_, i) => {
    const { messages } = makeStory(createRandom(FIRST_SEED + ((seed + i) % FIRST_SEED)), PEOPLE);
    return tokenizer.encodeChat(messages, { add_generation_prompt: true });
  });
  const end = tokenizer.encode(THINK_END, false);
  const written = await speaker.write(prompts, STORY_TOKENS);
  return written.flatMap((tokens, i) => {
    const place = tokens.findIndex((_, at) => end.every((token, j) => tokens[at + j] === token));
    const answer = tokens.slice(place + end.length, -1);
    return place < 0 || answer.length === 0
      ? []
      : [withFacts(prompts[i]!, tokens.slice(0, place), answer, tokenizer, random)];
  });
}
