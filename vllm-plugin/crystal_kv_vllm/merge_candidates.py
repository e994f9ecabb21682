"""The tokens of merges, as they are in the caches of a stack of layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .cache_stack import CacheStack, read_blocks
from .keep_rule import KeepRule
from .pool_positions import PoolPositions
from .slot_statistics import SlotStatistics
from .token_figures import COMPARED_STATISTICS, VECTOR_STATISTICS, MergedTokens, Tokens
from .worker_io import TableEntry

#: Numbers that are copied of the keys at once, of as many layers as that allows: 16 MB of them on a CPU, else 128 MB.
#: About ten copies are alive at the same time.
MAX_COPIED_CPU, MAX_COPIED = 1 << 22, 1 << 25
#: Tokens beside the candidates that are copied at once.
MAX_OTHERS = 1024
#: Numbers that choosing takes for each candidate, about.
_CHOOSING = 16


@dataclass(frozen=True)
class MergeCandidates:
    """All layers of a stack, and the merges of several requests that are alike: as many blocks, the same rule."""

    stack: CacheStack
    #: None: none are kept.
    statistics: SlotStatistics | None
    positions: PoolPositions
    #: Kernel blocks, and what `positions` knows them by: int64 [requests, blocks]. Candidates come first.
    blocks: torch.Tensor
    logical: torch.Tensor
    #: How many blocks hold candidates.
    own: int
    #: Of the rules: int64 [requests].
    seeds: torch.Tensor

    def parts(self, rule: KeepRule) -> Iterator[slice]:
        """Layers, as many at a time as there is room for when the rule chooses."""
        size, width = self.stack.block_size, self.stack.keys.shape[4]
        numbers = _CHOOSING * self.own * size
        copied = VECTOR_STATISTICS if self._compares_copies else VECTOR_STATISTICS - COMPARED_STATISTICS
        if not rule.statistics.isdisjoint(copied):
            beside = (self.blocks.shape[1] - self.own) * size
            numbers += width * (self.own * size + min(MAX_OTHERS, beside))
        return self._split(numbers)

    def moves(self) -> Iterator[slice]:
        """Layers, as many at a time as there is room for when tokens move."""
        return self._split(self.own * self.stack.block_size * self.stack.keys.shape[4])

    def _split(self, numbers: int) -> Iterator[slice]:
        """numbers: of a head group that are held at once."""
        layers = len(self.stack.layers)
        step = max(1, max_copied(self.blocks.device) // (numbers * self.stack.kv_heads * len(self.blocks)))
        for first in range(0, layers, step):
            yield slice(first, min(first + step, layers))

    @property
    def _compares_copies(self) -> bool:
        return self.blocks.device.type == "cpu"

    def rows(self, layers: slice) -> torch.Tensor | None:
        """Statistics of the candidates, as from `SlotStatistics.read`."""
        return None if self.statistics is None else self.statistics.read(layers, self.blocks[:, : self.own])

    def read(self, layers: slice) -> MergedTokens:
        """What a rule may ask of them in some layers. Groups are request by request."""
        stack, heads = self.stack, self.stack.kv_heads
        some, rows = self.blocks[:, : self.own], self.rows(layers)
        groups = torch.arange(layers.start * heads, layers.stop * heads, device=some.device) + stack.first * heads
        return MergedTokens(
            head_groups=groups.repeat(len(some)),
            positions=self.positions.read(layers, some, self.logical[:, : self.own]),
            vectors=lambda of_keys: read_blocks((stack.keys if of_keys else stack.values)[layers], some),
            rotation=stack.rotation,
            kept={} if self.statistics is None or rows is None else self.statistics.figures(rows),
            others=lambda of_keys: self._others(layers, of_keys),
            seeds=self.seeds[:, None].expand(-1, len(groups)).flatten(),
            kernel=None if self._compares_copies else lambda of_keys: self._compared(layers, of_keys),
        )

    def _compared(self, layers: slice, of_keys: bool) -> torch.Tensor:
        # it is not there without a GPU
        from .cosine_kernel import highest_cosines

        rotation = self.stack.rotation if of_keys else None
        highest: torch.Tensor = highest_cosines(
            (self.stack.keys if of_keys else self.stack.values)[layers],
            self.blocks,
            self.logical,
            self.positions.table[layers],
            self.own,
            None if rotation is None else rotation.cos_sin,
            rotation is None or rotation.halves,
        )
        return highest

    def _others(self, layers: slice, of_keys: bool) -> Iterator[Tokens]:
        cache = (self.stack.keys if of_keys else self.stack.values)[layers]
        step = max(1, MAX_OTHERS // self.stack.block_size)
        for first in range(self.own, self.blocks.shape[1], step):
            blocks, logical = self.blocks[:, first : first + step], self.logical[:, first : first + step]
            yield read_blocks(cache, blocks), self.positions.read(layers, blocks, logical)


def max_copied(device: torch.device) -> int:
    return MAX_COPIED_CPU if device.type == "cpu" else MAX_COPIED


def kernel_blocks(entries: Sequence[TableEntry], split: int) -> list[TableEntry]:
    """Blocks of the scheduler, each split into as many of the attention kernel."""
    return [TableEntry(it.index * split + i, it.block * split + i) for it in entries for i in range(split)]
