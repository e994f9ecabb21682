"""The tokens of a merge that is not carried out: each head group has them in slots of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .cache_stack import CacheStack
from .gen import policy_pb2 as pb
from .merge_candidates import MAX_OTHERS, max_copied
from .slot_statistics import SlotStatistics
from .token_figures import MergedTokens, Tokens


@dataclass(frozen=True)
class VirtualCandidates:
    """All layers of a stack."""

    stack: CacheStack
    #: None: none are kept.
    statistics: SlotStatistics | None
    #: Kernel blocks of the request: int64 [blocks].
    blocks: torch.Tensor
    #: Of the tokens in them: int32 [head groups, tokens of the blocks].
    positions: torch.Tensor
    #: Slots in `blocks` of the merge's tokens, candidates first: int64 [head groups, tokens].
    places: torch.Tensor
    #: How many tokens are candidates.
    count: int
    #: Of the rule.
    seed: int

    def parts(self) -> Iterator[slice]:
        """Layers, as many at a time as there is room for."""
        tokens = self.count + min(MAX_OTHERS, self.places.shape[1] - self.count)
        numbers = self.stack.kv_heads * self.stack.keys.shape[4] * tokens
        step = max(1, max_copied(self.blocks.device) // numbers)
        for first in range(0, len(self.stack.layers), step):
            yield slice(first, min(first + step, len(self.stack.layers)))

    def read(self, layers: slice) -> MergedTokens:
        """What a rule may ask of them in some layers."""
        stack, own = self.stack, slice(0, self.count)
        groups = torch.arange(layers.start * stack.kv_heads, layers.stop * stack.kv_heads, device=self.blocks.device)
        return MergedTokens(
            head_groups=groups + stack.first * stack.kv_heads,
            positions=self._positions(layers, own),
            vectors=lambda of_keys: self._tokens(stack.keys if of_keys else stack.values, layers, own),
            rotation=stack.rotation,
            kept=self._kept(layers),
            others=lambda of_keys: self._others(layers, of_keys),
            seeds=torch.full_like(groups, self.seed),
        )

    def _others(self, layers: slice, of_keys: bool) -> Iterator[Tokens]:
        cache = self.stack.keys if of_keys else self.stack.values
        for first in range(self.count, self.places.shape[1], MAX_OTHERS):
            some = slice(first, min(first + MAX_OTHERS, self.places.shape[1]))
            yield self._tokens(cache, layers, some), self._positions(layers, some)

    def _places(self, layers: slice, some: slice) -> torch.Tensor:
        heads = self.stack.kv_heads
        return self.places[layers.start * heads : layers.stop * heads, some]

    def _positions(self, layers: slice, some: slice) -> torch.Tensor:
        heads = self.stack.kv_heads
        return self.positions[layers.start * heads : layers.stop * heads].gather(1, self._places(layers, some))

    def _tokens(self, cache: torch.Tensor, layers: slice, some: slice) -> torch.Tensor:
        places, size = self._places(layers, some), self.stack.block_size
        group = torch.arange(len(places), device=places.device)[:, None]
        layer, head = group // self.stack.kv_heads, group % self.stack.kv_heads
        return cache[layers][layer, self.blocks[places // size], head, places % size]

    def _kept(self, layers: slice) -> dict["pb.Statistic.ValueType", torch.Tensor]:
        if self.statistics is None:
            return {}
        rows = self.statistics.read(layers, self.blocks)
        places = self._places(layers, slice(0, self.count))
        return self.statistics.figures(rows.gather(2, places.expand(len(rows), -1, -1)))
