import type { EmittedToken } from './choice.ts';

/** How tokens are written; `token_id:N` when a client asks for ids. */
export type TokenText = (tokenId: number) => string;

/** The lowest value that is reported: JSON has no minus infinity. */
const LEAST = -9999;
const atLeast = (logprob: number) => Math.max(logprob, LEAST);

/** `logprobs` of a chat choice. */
export function chatLogprobs(tokens: readonly EmittedToken[], textOf: TokenText): object {
  const entry = (tokenId: number, logprob: number) => {
    const token = textOf(tokenId);
    return { token, logprob: atLeast(logprob), bytes: [...Buffer.from(token)] };
  };
  return {
    content: tokens.map(({ id, logprob }) => ({
      ...entry(id, logprob?.logprob ?? LEAST),
      top_logprobs: (logprob?.top ?? []).map((top) => entry(top.tokenId, top.logprob)),
    })),
  };
}

/** `logprobs` of a text completion: parallel lists. `top_logprobs` has the likeliest tokens and the chosen one. */
export function completionLogprobs(tokens: readonly EmittedToken[], textOf: TokenText): object {
  return {
    text_offset: tokens.map((token) => token.textOffset),
    token_logprobs: tokens.map(({ logprob }) => (logprob === undefined ? null : atLeast(logprob.logprob))),
    tokens: tokens.map(({ id }) => textOf(id)),
    top_logprobs: tokens.map(({ id, logprob }) =>
      logprob === undefined
        ? null
        : Object.fromEntries(
            [{ tokenId: id, logprob: logprob.logprob }, ...logprob.top].map((top) => [
              textOf(top.tokenId),
              atLeast(top.logprob),
            ]),
          ),
    ),
  };
}
