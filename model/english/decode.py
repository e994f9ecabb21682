"""Greedy generation for many prompts at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import Network


@torch.no_grad()
def generate(network: Network, prompts: Sequence[Sequence[int]], end: int, limit: int) -> list[list[int]]:
    """What the network writes after each prompt: up to and with the token `end`, or `limit` tokens.

    Rows are padded at their ends and keep their own positions, so that a row's text depends on its neighbours only
    through the order of floating-point sums. Rows that have ended leave the batch.
    """
    written: list[list[int]] = [[] for _ in prompts]
    running = torch.arange(len(prompts))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    cache, logits = prefill(network, tokens, lengths, limit)
    for _ in range(limit):
        chosen = logits.argmax(-1)
        for row, token in zip(running.tolist(), chosen.tolist(), strict=True):
            written[row].append(token)
        going = chosen != end
        if not going.any():
            break
        if not going.all():
            running, lengths, chosen = running[going], lengths[going], chosen[going]
            cache = [(keys[going], values[going]) for keys, values in cache]
        logits = step(network, cache, chosen, lengths)
        lengths = lengths + 1
    return written


Cache = list[tuple[Tensor, Tensor]]


def prefill(network: Network, tokens: Tensor, lengths: Tensor, room: int) -> tuple[Cache, Tensor]:
    """Keys and values (B, k, T + room, c) of every layer, and the logits (B, V) after each row's last token."""
    time = tokens.shape[1]
    positions = torch.arange(time)
    x = network.embed(tokens)
    cache: Cache = []
    for layer in range(network.shape.layers):
        queries, keys, values = network.projected(layer, x, positions)
        cache.append((F.pad(keys, (0, 0, 0, room)), F.pad(values, (0, 0, 0, room))))
        attended = F.scaled_dot_product_attention(
            queries, network.for_queries(keys), network.for_queries(values), is_causal=True
        )
        x = network.finished(layer, x, attended)
    last = x[torch.arange(len(x)), lengths - 1]
    return cache, network.head(network.norm(last, "model.norm.weight"))


def step(network: Network, cache: Cache, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Logits (B, V) after one more token (B) in each row; its keys and values go where the row ends."""
    rows = torch.arange(len(tokens))
    longest = int(lengths.max()) + 1
    seen = (torch.arange(longest) <= lengths[:, None])[:, None, None]
    x = network.embed(tokens[:, None])
    for layer, (keys, values) in enumerate(cache):
        queries, key, value = network.projected(layer, x, lengths[:, None, None])
        keys[rows, :, lengths] = key[:, :, 0]
        values[rows, :, lengths] = value[:, :, 0]
        s = network.shape
        # The query heads of one key-value head as its rows: keys are read once for all of them.
        grouped = queries.view(len(tokens), s.key_value_heads, -1, s.head_width)
        attended = F.scaled_dot_product_attention(grouped, keys[:, :, :longest], values[:, :, :longest], attn_mask=seen)
        x = network.finished(layer, x, attended.view(len(tokens), s.query_heads, 1, s.head_width))
    return network.head(network.norm(x[:, 0], "model.norm.weight"))
