"""The last queries of each request, of all layers, until they are counted."""

from collections.abc import Sequence

import torch

from .cache_stack import CacheStack


class QueryRings:
    """A slot for each request that is followed. Made larger when there are more, so that few requests need little."""

    def __init__(self, stacks: Sequence[CacheStack], size: int) -> None:
        """size: queries in a slot."""
        self._stacks = stacks
        self._size = size
        self._free: list[int] = []
        self._slots = 0
        #: By stack: [layers, slots * size, kv heads, query heads of a group, head size]; made with the first query.
        self._queries: list[torch.Tensor | None] = [None] * len(stacks)
        self._places = {
            name: (number, place) for number, stack in enumerate(stacks) for place, name in enumerate(stack.layers)
        }

    def take(self) -> int:
        """A slot that nobody uses."""
        if not self._free:
            more = max(1, self._slots)
            self._free = list(range(self._slots + more - 1, self._slots - 1, -1))
            self._slots += more
        return self._free.pop()

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def drop(self) -> None:
        """No slot is in use any more."""
        self._free, self._slots = [], 0
        self._queries = [None] * len(self._stacks)

    def place(self, slot: int) -> int:
        """Of its first query."""
        return slot * self._size

    def layer(self, name: str) -> tuple[int, int]:
        """The stack of a layer, and its place there."""
        return self._places[name]

    def heads_per_group(self, stack: int) -> int:
        queries = self._queries[stack]
        return 1 if queries is None else queries.shape[3]

    def write(self, layer: str, queries: torch.Tensor, places: torch.Tensor) -> None:
        """queries: [queries, kv heads, query heads of a group, head size]; places: int64 [queries]"""
        stack, place = self._places[layer]
        ring = self._queries[stack]
        if ring is None or ring.shape[1] < self._slots * self._size:
            ring = self._grown(stack, ring, queries)
        ring[place].index_copy_(0, places, queries)

    def read(self, stack: int, layers: slice, slot: int, count: int) -> torch.Tensor:
        """The first queries in a slot: [layers, count, kv heads, query heads of a group, head size]."""
        ring = self._queries[stack]
        assert ring is not None
        return ring[layers, slot * self._size : slot * self._size + count]

    def _grown(self, stack: int, old: torch.Tensor | None, queries: torch.Tensor) -> torch.Tensor:
        shape = (len(self._stacks[stack].layers), self._slots * self._size, *queries.shape[1:])
        ring = queries.new_zeros(shape)
        if old is not None:
            ring[:, : old.shape[1]] = old
        self._queries[stack] = ring
        return ring
