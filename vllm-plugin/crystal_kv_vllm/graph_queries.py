"""The queries of steps whose attention is replayed from a captured graph.

A replay runs no Python. So what runs while a graph is captured copies the queries of each layer to a place that never
moves, and that copy is part of the graph. After the step they are recorded as if the layers had just run.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class GraphQueries:
    def __init__(self) -> None:
        #: By layer: [tokens of the largest graph, kv heads, query heads of a group, head size].
        self._places: dict[str, torch.Tensor] = {}
        self._in_step = False
        self._ran = False

    def reserve(self, layers: Mapping[str, Any], tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        """Before anything is captured. layers: implementations of attention by name; tokens: of the largest graph."""
        self._places = {
            name: torch.zeros(
                (tokens, impl.num_kv_heads, impl.num_heads // impl.num_kv_heads, impl.head_size),
                dtype=dtype,
                device=device,
            )
            for name, impl in layers.items()
        }

    def drop(self) -> None:
        self._places = {}

    @property
    def bytes(self) -> int:
        return sum(place.numel() * place.element_size() for place in self._places.values())

    def begin(self) -> None:
        """A step of requests begins."""
        self._in_step, self._ran = True, False

    def end(self) -> None:
        self._in_step = False

    def keep(self, layer: str, queries: torch.Tensor) -> None:
        """Of a layer that runs. queries: [tokens, kv heads, query heads of a group, head size]."""
        self._ran = True
        place = self._places.get(layer)
        # in a step they are recorded at once; else this runs to be captured, or for nothing
        if not self._in_step and place is not None and len(queries) <= len(place):
            place[: len(queries)].copy_(queries)

    def replayed(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The queries of a step in which no layer ran, by layer; padding comes last."""
        if self._in_step and not self._ran:
            yield from self._places.items()


#: There is one worker in a process.
graph_queries = GraphQueries()
