"""Takes the queries that count out of a forward pass: the metadata builder knows their places, the layers have them.

Copying is all that a layer does, unless a chunk is longer than a ring: that is counted at once, layer by layer.
"""

from typing import Protocol

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from .mass_recorder import RowIds
from .uploads import upload


class StepQueries(Protocol):
    """What is to be done with the queries of one step."""

    #: By request: index in its chunk of the first query that counts, and where the queries go in the rings.
    copies: dict[str, tuple[int, range]]
    #: Requests whose chunks are longer than a ring, with the index of the first query that counts.
    long: dict[str, int]

    def store(self, layer: str, queries: torch.Tensor, places: torch.Tensor) -> None: ...

    def count(self, layer: str, request_id: str, queries: torch.Tensor) -> None: ...


class QueryRecorder:
    def __init__(self) -> None:
        self._step: StepQueries | None = None
        self._row_ids: RowIds | None = None
        self._sources: torch.Tensor | None = None
        self._places: torch.Tensor | None = None
        self._long: dict[str, slice] = {}

    def begin(self, step: StepQueries, row_ids: RowIds) -> None:
        """A step with queries that count begins; `row_ids` is asked when its metadata is built."""
        self._step = step
        self._row_ids = row_ids
        self._sources = self._places = None
        self._long = {}

    def end(self) -> None:
        self._step = self._row_ids = None

    @property
    def recording(self) -> bool:
        return self._step is not None

    def record_rows(self, metadata: CommonAttentionMetadata) -> None:
        """Finds the queries in the batch; does nothing in a step without any."""
        step, row_ids = self._step, self._row_ids
        if step is None or row_ids is None:
            return
        starts = metadata.query_start_loc_cpu.tolist()
        device = metadata.query_start_loc.device
        sources: list[int] = []
        places: list[int] = []
        self._long = {}
        for row, name in enumerate(row_ids(metadata)):
            start, stop = starts[row], starts[row + 1]
            if name in step.copies:
                first, into = step.copies[name]
                sources.extend(range(start + first, start + first + len(into)))
                places.extend(into)
            elif name in step.long:
                self._long[name] = slice(start + step.long[name], stop)
        self._sources = upload(sources, device)
        self._places = upload(places, device)

    def record_layer(self, layer: str, queries: torch.Tensor) -> None:
        """queries: [tokens of the batch, kv heads, query heads of a group, head size]. Keys are stored by now."""
        step = self._step
        if step is None or self._sources is None or self._places is None:
            return
        if len(self._sources):
            step.store(layer, queries.index_select(0, self._sources), self._places)
        for name, part in self._long.items():
            step.count(layer, name, queries[part])


#: There is one worker in a process.
query_recorder = QueryRecorder()
