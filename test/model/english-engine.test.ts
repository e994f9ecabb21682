import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadTokenizer } from '../../engine/http/tokenizer.ts';
import { type ModelConfig, readModelConfig } from '../../engine/model/config.ts';
import { LlamaModel } from '../../engine/model/llama.ts';
import type { WeightFormat } from '../../engine/model/matrix.ts';
import { englishFolder } from '../../model/english/folder.ts';
import { judge } from '../../model/english/judge.ts';
import { makeStory, THINK_END } from '../../model/english/story.ts';
import { NEEDS_FOLDER, READY } from './english.ts';

const BLOCK = 16;
const BLOCKS = 40;
const CHUNK = 128;
/** The last tokens of a text: the end of its thinking, and its answer. */
const COMPARED = 64;

describe('the English model in the embedded engine', NEEDS_FOLDER, () => {
  const folder = READY ? englishFolder() : '';
  const story = makeStory(2_000_001, 5);

  /** Feeds tokens of one sequence, and returns the logits of the last. */
  function reader(format: WeightFormat, config: ModelConfig) {
    const model = new LlamaModel(folder, config, BLOCK, BLOCKS, CHUNK, { weights: format, maxLogits: 2 });
    const blocks = Array.from({ length: BLOCKS }, (_, i) => i + 1);
    let position = 0;
    return (tokenIds: readonly number[]) => {
      const [result] = model.forward([{ tokenIds, position, blocks, logits: true, measure: false }]);
      position += tokenIds.length;
      return result!.logits!;
    };
  }

  it('thinks a story through with weights of 8 bits, and answers right', () => {
    const config = readModelConfig(folder);
    const tokenizer = loadTokenizer(folder);
    const read = reader('int8', config);
    const written: number[] = [];
    let next = mostLikely(read(tokenizer.encodeChat(story.messages, { add_generation_prompt: true })));
    for (; next !== config.eosTokenId && written.length < 400; next = mostLikely(read([next]))) written.push(next);
    const end = written.indexOf(tokenizer.thinkEndId!);
    const text = tokenizer.decode(written, true);
    assert.ok(end > 0, text);
    assert.ok(judge(story, tokenizer.decode(written.slice(end + 1), true)).exact, text);
  });

  it('says with weights of 8 bits what it says in float32', () => {
    const config = readModelConfig(folder);
    const tokenizer = loadTokenizer(folder);
    const [exact, rounded] = [reader('float32', config), reader('int8', config)];
    const prompt = tokenizer.encodeChat(story.messages, { add_generation_prompt: true });
    const text = [...prompt, ...tokenizer.encode(story.reasoning + THINK_END + story.answer, false)];
    const tokens = text.slice(-COMPARED);
    let next = text.slice(0, -COMPARED);
    for (; next.length > CHUNK; next = next.slice(CHUNK))
      for (const read of [exact, rounded]) read(next.slice(0, CHUNK));
    let [same, divergence] = [0, 0];
    for (const token of tokens) {
      const [a, b] = [exact(next), rounded(next)];
      same += Number(mostLikely(a) === mostLikely(b));
      divergence += divergenceOf(a, b);
      next = [token];
    }
    assert.ok(same >= 0.98 * tokens.length, `the most likely token is the same at ${same} of ${tokens.length}`);
    assert.ok(divergence / tokens.length < 1e-3, `${divergence / tokens.length} nats per token`);
  });
});

function mostLikely(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

/** KL divergence in nats. */
function divergenceOf(logits: Float32Array, others: Float32Array): number {
  const [norm, otherNorm] = [normOf(logits), normOf(others)];
  return logits.reduce((sum, logit, i) => sum + Math.exp(logit - norm) * (logit - norm - (others[i]! - otherNorm)), 0);
}

function normOf(logits: Float32Array): number {
  const highest = logits[mostLikely(logits)]!;
  return highest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
}
