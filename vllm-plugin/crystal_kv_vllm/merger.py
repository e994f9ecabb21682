"""The worker's part of a merge: moves the tokens that are kept into the blocks that stay."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import torch

from .cache_stack import CacheStack, read_blocks, write_blocks
from .gen import policy_pb2 as pb
from .keep_rule import KeepRule
from .merged_positions import MergedPositions
from .slot_statistics import SlotStatistics
from .token_figures import MergedTokens
from .token_selection import select_tokens
from .worker_io import MergeCommand, TableEntry

#: Numbers that are copied of the keys at once, of as many layers as that allows: 16 MB of them on a CPU, else 128 MB.
#: About ten copies are alive at the same time.
MAX_COPIED_CPU, MAX_COPIED = 1 << 22, 1 << 25


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
            into, given, beside = (_kernel_blocks(it, split) for it in (command.into, command.from_, command.beside))
            entries = [*into, *given, *beside]
            positions = known.of(request_id, [entry.index for entry in entries])
            blocks = torch.tensor([entry.block for entry in entries], device=stack.keys.device)
            room = len(into) * stack.block_size
            kept = _merge_stack(stack, slots, blocks, positions, len(into) + len(given), room, command.rule)
            known.merge(
                request_id,
                [entry.index for entry in into],
                [entry.index for entry in given],
                positions.gather(1, kept),
            )


def _merge_stack(
    stack: CacheStack,
    slots: SlotStatistics | None,
    blocks: torch.Tensor,
    positions: torch.Tensor,
    candidates: int,
    room: int,
    rule: KeepRule,
) -> torch.Tensor:
    """Returns the candidates that are kept, as `select_tokens`.

    blocks: int64, the candidates' come first, and of these the ones that stay. positions: [head groups, tokens].
    candidates: in blocks; room: in tokens.
    """
    heads, size = stack.kv_heads, stack.block_size
    numbers = heads * stack.keys.shape[4] * len(blocks) * size
    step = max(1, (MAX_COPIED_CPU if blocks.device.type == "cpu" else MAX_COPIED) // numbers)
    kept = []
    for first in range(0, len(stack.layers), step):
        layers = slice(first, first + step)
        groups = slice(first * heads, (first + step) * heads)
        keys, values = stack.keys[layers], stack.values[layers]
        own = blocks[:candidates]
        some_keys = read_blocks(keys, blocks if pb.STATISTIC_DISTINCT_KEYS in rule.statistics else own)
        some_values = read_blocks(values, blocks if pb.STATISTIC_DISTINCT_VALUES in rule.statistics else own)
        rows = None if slots is None else slots.read(layers, own)
        tokens = MergedTokens(
            candidates=candidates * size,
            head_groups=torch.arange(some_keys.shape[0], device=blocks.device) + (stack.first + first) * heads,
            positions=positions[groups],
            keys=some_keys,
            values=some_values,
            rotation=stack.rotation,
            kept={} if slots is None or rows is None else slots.figures(rows),
        )
        chosen = select_tokens(rule, tokens, room)
        into = blocks[: room // size]
        for cache, old in ((keys, some_keys), (values, some_values)):
            write_blocks(cache, into, old.gather(1, chosen[:, :, None].expand(-1, -1, old.shape[2])))
        if slots is not None and rows is not None:
            slots.write(layers, into, rows.gather(2, chosen.expand(len(rows), -1, -1)))
        kept.append(chosen)
    return torch.cat(kept)


def _kernel_blocks(entries: Sequence[TableEntry], split: int) -> list[TableEntry]:
    """Blocks of the scheduler, each split into as many of the attention kernel."""
    return [TableEntry(it.index * split + i, it.block * split + i) for it in entries for i in range(split)]
