"""The worker's part of a merge: moves the tokens that are kept into the blocks that stay."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import torch

from .cache_stack import CacheStack, write_blocks
from .keep_rule import KeepRule
from .merge_candidates import MergeCandidates, kernel_blocks
from .merged_positions import MergedPositions
from .slot_statistics import SlotStatistics
from .token_selection import select_tokens
from .worker_io import MergeCommand


class Merger:
    """Carries merges out, for each layer and KV head by itself; records where in a merged block which token is."""

    def __init__(self, stacks: Sequence[CacheStack]) -> None:
        self._parts = [
            (stack, MergedPositions(len(stack.layers), stack.kv_heads, stack.block_size, stack.keys.device))
            for stack in stacks
        ]

    def forget(self, request_ids: Iterable[str]) -> None:
        """The caches of these requests are gone."""
        for _, positions in self._parts:
            positions.forget(request_ids)

    def merge(self, request_id: str, command: MergeCommand, statistics: Sequence[SlotStatistics] = ()) -> None:
        """Afterwards `into` holds the tokens that are kept, by position, and what is in `from_` means nothing.

        statistics: of the tokens, stack by stack; they move with them. None: none are kept.
        """
        for (stack, known), slots in zip_longest(self._parts, statistics):
            split = command.block_size // stack.block_size
            into, given, beside = (kernel_blocks(it, split) for it in (command.into, command.from_, command.beside))
            entries = [*into, *given, *beside]
            candidates = MergeCandidates(
                stack,
                slots,
                torch.tensor([entry.block for entry in entries], device=stack.keys.device),
                known.of(request_id, [entry.index for entry in entries]),
                (len(into) + len(given)) * stack.block_size,
            )
            kept = _merge_stack(candidates, len(into), command.rule)
            known.merge(
                request_id,
                [entry.index for entry in into],
                [entry.index for entry in given],
                candidates.positions.gather(1, kept),
            )

    def positions(self, request_id: str, stack: int, blocks: Sequence[int]) -> torch.Tensor:
        """Of the tokens in some of a request's blocks: int32 [head groups of the stack, tokens].

        stack: by its number; blocks: logical ones of the attention kernel.
        """
        return self._parts[stack][1].of(request_id, blocks)


def _merge_stack(candidates: MergeCandidates, room: int, rule: KeepRule) -> torch.Tensor:
    """Returns the candidates that are kept, as `select_tokens`. room: in blocks, the first ones."""
    stack, slots = candidates.stack, candidates.statistics
    into = candidates.blocks[:room]
    kept = []
    for layers in candidates.parts():
        tokens = candidates.read(layers, rule)
        rows = candidates.rows(layers)
        chosen = select_tokens(rule, tokens, room * stack.block_size)
        for cache, old in ((stack.keys, tokens.keys), (stack.values, tokens.values)):
            write_blocks(cache[layers], into, old.gather(1, chosen[:, :, None].expand(-1, -1, old.shape[2])))
        if slots is not None and rows is not None:
            slots.write(layers, into, rows.gather(2, chosen.expand(len(rows), -1, -1)))
        kept.append(chosen)
    return torch.cat(kept)
