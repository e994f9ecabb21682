import { Sequence } from './sequence.ts';

/**
 * An answer probe: a fork of a running request that is told to stop thinking, and whose answer nobody sees. What its
 * first tokens attend to is what the answer would need now.
 *
 * @param sharedTokens leading tokens whose blocks it takes over from its parent, holes included
 * @param suffix the token sequence that ends thinking
 * @param tokens most tokens of answer to generate
 */
export function forkForProbe(
  handle: number,
  parent: Sequence,
  sharedTokens: number,
  suffix: readonly number[],
  tokens: number,
): Sequence {
  const request = {
    id: `probe-${handle}`,
    choiceIndex: 0,
    promptTokenIds: [...parent.tokenIds, ...suffix],
    sampling: {
      maxTokens: tokens,
      temperature: 0,
      topP: 1,
      topK: 0,
      seed: 0,
      ignoreEos: false,
      stopTokenIds: [],
      logprobs: undefined,
    },
    cache: { crystalkvId: '', profile: '', budgetTokens: undefined, mode: undefined },
  };
  return new Sequence(handle, request, { parent, sharedTokens });
}
