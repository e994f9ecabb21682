"""Collects the masses of one step in a worker process.

Three places of one forward pass take part, and vLLM gives them nothing in common: the worker knows the commands, the
metadata builder the rows, the attention layers queries and keys. This object is what they share.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from .masses import RowSelection, block_masses, log_codes, select_rows
from .shadow_marks import ShadowMarks
from .worker_io import MarkedReads, Masses, WorkerCommands

logger = logging.getLogger("vllm.crystal_kv")

#: The request of each row of a batch, in the batch's order.
RowIds = Callable[[CommonAttentionMetadata], list[str]]


class MeasuringImpl(Protocol):
    """What measuring needs of a layer's attention."""

    num_kv_heads: int

    def logsumexp(self, layers: "Sequence[RecordedLayer]", rows: RowSelection) -> torch.Tensor: ...

    @property
    def sink_scores(self) -> torch.Tensor | None: ...


@dataclass(frozen=True)
class RecordedLayer:
    """What is left of a layer until the step is measured."""

    impl: MeasuringImpl
    #: [rows, kv heads, query heads of a group, head size], a copy.
    query: torch.Tensor
    #: The cache itself: what the measured rows read stays until the next step.
    kv_cache: torch.Tensor


@dataclass
class PendingMasses:
    """Masses on their way from the device."""

    codes: torch.Tensor | None
    rows: RowSelection | None
    copied: torch.cuda.Event | None = None
    #: Requests of which tokens are marked, and float64 [requests, 2] of what their queries give to these.
    marked: tuple[list[str], torch.Tensor | None] = ([], None)

    def reads(self) -> dict[str, MarkedReads]:
        """After `resolve`."""
        names, figures = self.marked
        if figures is None:
            return {}
        return {
            name: MarkedReads(missed, int(regretted))
            for name, (missed, regretted) in zip(names, figures.tolist(), strict=True)
        }

    def resolve(self) -> Masses:
        """Waits for the copy, not for the device. [head groups, blocks] cut into the rows of the requests."""
        if self.codes is None or self.rows is None:
            return {}
        if self.copied is not None:
            self.copied.synchronize()
        codes = self.codes.numpy()
        masses, start = {}, 0
        for request_id, count in zip(self.rows.request_ids, self.rows.counts, strict=True):
            masses[request_id] = codes[:, start : start + count].tobytes()
            start += count
        return masses


class MassRecorder:
    def __init__(self) -> None:
        self._commands: WorkerCommands | None = None
        self._row_ids: RowIds | None = None
        self._rows: RowSelection | None = None
        self._layers: dict[str, RecordedLayer] = {}
        self._wanted: frozenset[str] = frozenset()
        self._complained = False

    def begin(self, commands: WorkerCommands, row_ids: RowIds) -> None:
        """A step that is to be measured begins; `row_ids` is asked when its metadata is built."""
        self._commands = commands
        self._row_ids = row_ids
        self._rows = None
        self._layers = {}
        self._wanted = frozenset(layer for layer, _ in commands.head_groups)

    def record_rows(self, metadata: CommonAttentionMetadata, block_size: int) -> None:
        """Takes the compacted metadata of the step; does nothing when the step is not measured."""
        if self._commands is None or self._row_ids is None:
            return
        wanted = self._commands.measure
        rows = [(row, name) for row, name in enumerate(self._row_ids(metadata)) if name in wanted]
        self._rows = select_rows(
            rows, metadata.block_table_tensor, metadata.seq_lens, metadata.query_start_loc, block_size
        )

    @property
    def measuring(self) -> bool:
        """Whether anything of this step is measured."""
        return self._rows is not None

    def rows_for(self, layer: str) -> RowSelection | None:
        """The rows to measure in a layer; None when nothing of it is wanted."""
        return self._rows if layer in self._wanted else None

    def record_layer(self, layer: str, recorded: RecordedLayer) -> None:
        self._layers[layer] = recorded

    def finish(self, marks: ShadowMarks | None = None) -> PendingMasses:
        """Ends the step. marks: what shadow plans marked; None: nothing.

        All layers are measured at once: in small batches the number of operations is what costs.
        """
        commands, rows, recorded = self._commands, self._rows, self._layers
        self._commands = self._row_ids = self._rows = None
        self._layers = {}
        if commands is None or rows is None:
            return PendingMasses(None, None)
        absent = self._wanted - recorded.keys()
        if absent:
            self._complain(min(absent))
            return PendingMasses(None, None)
        layers = list(recorded.values())
        impl = layers[0].impl
        sinks = [scores for layer in layers if (scores := layer.impl.sink_scores) is not None]
        masses = block_masses(impl.logsumexp(layers, rows), rows, torch.cat(sinks) if sinks else None)
        codes = log_codes(masses).t().contiguous()
        first = {layer: place * impl.num_kv_heads for place, layer in enumerate(recorded)}
        places = [first[layer] + head for layer, head in commands.head_groups]
        if places != list(range(len(codes))):
            codes = codes[places]
        names: list[str] = []
        figures: torch.Tensor | None = None
        if marks is not None:
            queries = {layer: of.query for layer, of in recorded.items()}
            names, figures = marks.reads(rows, queries, commands.head_groups)
        if codes.device.type == "cpu":
            return PendingMasses(codes, rows, marked=(names, figures))
        host = _on_host(codes)
        figures = None if figures is None else _on_host(figures)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return PendingMasses(host, rows, copied, (names, figures))

    def _complain(self, layer: str) -> None:
        """Once: the service can do without masses, and clients cannot do without the engine."""
        if not self._complained:
            self._complained = True
            logger.error("crystal-kv: attention of layer %s was not computed: nothing is measured", layer)


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that is on its way."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


#: There is one worker in a process.
mass_recorder = MassRecorder()
