import type { ChatTokenizer } from '../../engine/http/tokenizer.ts';
import { type Story, THINK_END } from '../../model/english/story.ts';
import { createRandom } from '../../model/random.ts';
import type { Speaker } from './speaker.ts';
import { type Text, withFacts } from './texts.ts';

/** Stories as the English model thinks them through by itself; those that it ends with an answer of at most so many tokens. */
export async function writeStories(
  speaker: Speaker,
  tokenizer: ChatTokenizer,
  stories: readonly Story[],
  mostTokens: number,
  seed: number,
): Promise<Text[]> {
  const random = createRandom(seed);
  const prompts = stories.map(({ messages }) => tokenizer.encodeChat(messages, { add_generation_prompt: true }));
  const end = tokenizer.encode(THINK_END, false);
  const written = await speaker.write(prompts, mostTokens);
  return written.flatMap((tokens, i) => {
    const place = tokens.findIndex((_, at) => end.every((token, j) => tokens[at + j] === token));
    const answer = tokens.slice(place + end.length, -1);
    return place < 0 || answer.length === 0
      ? []
      : [withFacts(prompts[i]!, tokens.slice(0, place), answer, tokenizer, random)];
  });
}
