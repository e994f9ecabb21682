"""Collects the masses of one step in a worker process.

Three places of one forward pass take part, and vLLM gives them nothing in common: the worker knows the orders, the
metadata builder the rows, the attention layers queries and keys. This object is what they share.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from .masses import RowSelection, log_codes, select_rows
from .orders import Masses, StepOrders

#: The request of each row of a batch, in the batch's order.
RowIds = Callable[[CommonAttentionMetadata], list[str]]


@dataclass
class PendingMasses:
    """Masses on their way from the device."""

    codes: torch.Tensor | None
    rows: RowSelection | None
    copied: torch.cuda.Event | None = None

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


class Recorder:
    def __init__(self) -> None:
        self._orders: StepOrders | None = None
        self._row_ids: RowIds | None = None
        self._rows: RowSelection | None = None
        self._codes: dict[int, torch.Tensor] = {}

    def begin(self, orders: StepOrders, row_ids: RowIds) -> None:
        """A step that is to be measured begins; `row_ids` is asked when its metadata is built."""
        self._orders = orders
        self._row_ids = row_ids
        self._rows = None
        self._codes = {}

    def note_rows(self, metadata: CommonAttentionMetadata, block_size: int) -> None:
        """Takes the compacted metadata of the step; does nothing when the step is not measured."""
        if self._orders is None or self._row_ids is None:
            return
        wanted = self._orders.measure
        rows = [(row, name) for row, name in enumerate(self._row_ids(metadata)) if name in wanted]
        self._rows = select_rows(
            rows, metadata.block_table_tensor, metadata.seq_lens, metadata.query_start_loc, block_size
        )

    @property
    def measuring(self) -> bool:
        """Whether anything of this step is measured."""
        return self._rows is not None

    def rows_for(self, layer: int, kv_heads: int) -> RowSelection | None:
        """The rows to measure in a layer; None when nothing of it is wanted."""
        if self._rows is None or self._orders is None:
            return None
        groups = self._orders.head_groups
        wanted = not groups or any(group // kv_heads == layer for group in groups)
        return self._rows if wanted else None

    def record(self, layer: int, masses: torch.Tensor) -> None:
        """masses: [blocks, kv heads], in the order of the selection."""
        self._codes[layer] = log_codes(masses)

    def finish(self) -> PendingMasses:
        """Ends the step."""
        orders, rows, layers = self._orders, self._rows, self._codes
        self._orders = self._row_ids = self._rows = None
        self._codes = {}
        if orders is None or rows is None or not layers:
            return PendingMasses(None, None)
        if orders.head_groups:
            kv_heads = next(iter(layers.values())).shape[1]
            columns = [layers[group // kv_heads][:, group % kv_heads] for group in orders.head_groups]
            codes = torch.stack(columns)
        else:
            codes = torch.cat([layers[layer].t() for layer in sorted(layers)])
        if codes.device.type == "cpu":
            return PendingMasses(codes, rows)
        host = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
        host.copy_(codes, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return PendingMasses(host, rows, copied)


#: There is one worker in a process.
recorder = Recorder()
