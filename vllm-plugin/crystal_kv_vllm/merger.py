"""The worker's part of merges: moves the tokens that are kept into the blocks that stay."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch

from .cache_stack import CacheStack, read_blocks, write_blocks
from .hole_tracker import NULL_BLOCK
from .keep_rule import KeepRule
from .merge_candidates import MergeCandidates, kernel_blocks, max_copied
from .pool_positions import IN_TABLE, PoolPositions
from .slot_statistics import SlotStatistics
from .token_selection import select_tokens
from .uploads import upload
from .worker_io import MergeCommand, TableEntry

#: A merge of a request, by its name.
NamedMerge = tuple[str, MergeCommand]


@dataclass(frozen=True)
class _Likeness:
    """What merges have in common that are carried out together; in blocks of the kernel."""

    into: int
    own: int
    #: Without its seed.
    rule: KeepRule


class Merger:
    """Carries merges out, for each layer and KV head by itself; records where in a merged block which token is.

    Nothing of it waits for the device, and what it needs of memory is bounded, however long the outputs are.
    """

    def __init__(self, stacks: Sequence[CacheStack]) -> None:
        self._parts = [(stack, PoolPositions(stack)) for stack in stacks]

    def forget(self, request_ids: Iterable[str]) -> None:
        """The caches of these requests are gone."""
        names = list(request_ids)
        for _, positions in self._parts:
            positions.forget(names)

    def merge(self, request_id: str, command: MergeCommand, statistics: Sequence[SlotStatistics] = ()) -> None:
        """Afterwards `into` holds the tokens that are kept, by position, and what is in `from_` means nothing.

        statistics: of the tokens, stack by stack; they move with them. Empty: none are kept.
        """
        self.merge_all([(request_id, command)], statistics)

    def merge_all(self, merges: Sequence[NamedMerge], statistics: Sequence[SlotStatistics] = ()) -> None:
        """As `merge`; those that are alike are carried out together. One merge of each request at most."""
        for (stack, known), slots in zip_longest(self._parts, statistics):
            alike: dict[_Likeness, list[NamedMerge]] = {}
            for name, command in merges:
                split = command.block_size // stack.block_size
                into = len(command.into) * split
                key = _Likeness(into, into + len(command.from_) * split, replace(command.rule, seed=0))
                alike.setdefault(key, []).append((name, command))
            for key, some in alike.items():
                numbers = stack.kv_heads * stack.keys.shape[4] * key.own * stack.block_size
                together = max(1, max_copied(stack.keys.device) // numbers)
                for first in range(0, len(some), together):
                    _merge_alike(stack, known, slots, key, some[first : first + together])

    def positions(self, request_id: str, stack: int, blocks: Sequence[TableEntry]) -> torch.Tensor:
        """Of the tokens in some of a request's blocks: int32 [head groups of the stack, tokens].

        stack: by its number; blocks: of the attention kernel.
        """
        of, known = self._parts[stack]
        pair = [[entry.block for entry in blocks], known.logical(request_id, blocks)]
        ids, logical = upload(pair, of.keys.device)
        return known.read(slice(0, len(of.layers)), ids[None], logical[None])


def _merge_alike(
    stack: CacheStack,
    known: PoolPositions,
    slots: SlotStatistics | None,
    key: _Likeness,
    merges: Sequence[NamedMerge],
) -> None:
    rows = []
    for name, command in merges:
        split = command.block_size // stack.block_size
        into, given, beside = (kernel_blocks(it, split) for it in (command.into, command.from_, command.beside))
        entries = [*into, *given, *beside]
        rows.append(([entry.block for entry in entries], known.logical(name, entries)))
        known.merged(name, into, given)
    longest = max(len(blocks) for blocks, _ in rows)
    # the null block's positions are before all others, so that it is no repetition of anything
    padded = [
        [*blocks, *filling, *logical, *(IN_TABLE for _ in filling), command.rule.seed]
        for (blocks, logical), (_, command) in zip(rows, merges, strict=True)
        for filling in ([NULL_BLOCK] * (longest - len(blocks)),)
    ]
    numbers = upload(padded, stack.keys.device)
    candidates = MergeCandidates(
        stack, slots, known, numbers[:, :longest], numbers[:, longest:-1], key.own, numbers[:, -1]
    )
    blocks = candidates.blocks[:, : key.into]
    kept = []
    for layers in candidates.parts(key.rule):
        tokens, figures = candidates.read(layers), candidates.rows(layers)
        chosen = select_tokens(key.rule, tokens, key.into * stack.block_size)
        if slots is not None and figures is not None:
            slots.write(layers, blocks, figures.gather(2, chosen.expand(len(figures), -1, -1)))
        known.write(layers, blocks, tokens.positions.gather(1, chosen))
        kept.append(chosen.view(len(merges), -1, chosen.shape[1]))
    stay = torch.cat(kept, 1)
    for layers in candidates.moves():
        of = slice(layers.start * stack.kv_heads, layers.stop * stack.kv_heads)
        chosen = stay[:, of].flatten(0, 1)[:, :, None].expand(-1, -1, stack.keys.shape[4])
        for cache in (stack.keys[layers], stack.values[layers]):
            write_blocks(cache, blocks, read_blocks(cache, candidates.blocks[:, : key.own]).gather(1, chosen))
