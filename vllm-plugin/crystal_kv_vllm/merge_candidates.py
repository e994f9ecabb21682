"""The tokens of a merge, as they are in the caches of a stack of layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .cache_stack import CacheStack, read_blocks
from .gen import policy_pb2 as pb
from .keep_rule import KeepRule
from .slot_statistics import SlotStatistics
from .token_figures import MergedTokens
from .worker_io import TableEntry

#: Numbers that are copied of the keys at once, of as many layers as that allows: 16 MB of them on a CPU, else 128 MB.
#: About ten copies are alive at the same time.
MAX_COPIED_CPU, MAX_COPIED = 1 << 22, 1 << 25


@dataclass(frozen=True)
class MergeCandidates:
    """All layers of a stack."""

    stack: CacheStack
    #: None: none are kept.
    statistics: SlotStatistics | None
    #: Kernel blocks that the tokens are in: int64.
    blocks: torch.Tensor
    #: Of the tokens, candidates first: int32 [head groups, tokens].
    positions: torch.Tensor
    #: How many tokens are candidates.
    count: int
    #: Where the tokens are in `blocks`, one block after the other: int64 [head groups, tokens]. None: in this order.
    places: torch.Tensor | None = None

    def parts(self) -> Iterator[slice]:
        """Layers, as many at a time as there is room for."""
        stack = self.stack
        numbers = stack.kv_heads * stack.keys.shape[4] * len(self.blocks) * stack.block_size
        limit = MAX_COPIED_CPU if self.blocks.device.type == "cpu" else MAX_COPIED
        step = max(1, limit // numbers)
        for first in range(0, len(stack.layers), step):
            yield slice(first, min(first + step, len(stack.layers)))

    def read(self, layers: slice, rule: KeepRule) -> MergedTokens:
        """What the rule needs of them in some layers; a copy."""
        stack, heads = self.stack, self.stack.kv_heads
        groups = slice(layers.start * heads, layers.stop * heads)
        rows = self.rows(layers)
        return MergedTokens(
            candidates=self.count,
            head_groups=torch.arange(groups.start, groups.stop, device=self.blocks.device) + stack.first * heads,
            positions=self.positions[groups],
            keys=self._read(stack.keys[layers], groups, pb.STATISTIC_DISTINCT_KEYS in rule.statistics),
            values=self._read(stack.values[layers], groups, pb.STATISTIC_DISTINCT_VALUES in rule.statistics),
            rotation=stack.rotation,
            kept={} if self.statistics is None or rows is None else self.statistics.figures(rows),
        )

    def rows(self, layers: slice) -> torch.Tensor | None:
        """Statistics of the candidates, as from `SlotStatistics.read`."""
        if self.statistics is None:
            return None
        if self.places is None:
            return self.statistics.read(layers, self._own)
        rows = self.statistics.read(layers, self.blocks)
        heads = self.stack.kv_heads
        places = self.places[layers.start * heads : layers.stop * heads, : self.count]
        return rows.gather(2, places.expand(len(rows), -1, -1))

    @property
    def _own(self) -> torch.Tensor:
        return self.blocks[: self.count // self.stack.block_size]

    def _read(self, cache: torch.Tensor, groups: slice, others: bool) -> torch.Tensor:
        """others: of all tokens, not of the candidates alone."""
        if self.places is None:
            return read_blocks(cache, self.blocks if others else self._own)
        tokens = read_blocks(cache, self.blocks)
        places = self.places[groups] if others else self.places[groups, : self.count]
        return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


def kernel_blocks(entries: Sequence[TableEntry], split: int) -> list[TableEntry]:
    """Blocks of the scheduler, each split into as many of the attention kernel."""
    return [TableEntry(it.index * split + i, it.block * split + i) for it in entries for i in range(split)]
