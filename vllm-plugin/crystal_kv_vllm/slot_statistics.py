"""Statistics of tokens beside the caches of a stack of layers: a number for each slot, layer and KV head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .attention_weights import Weights
from .cache_stack import CacheStack
from .gen import policy_pb2 as pb
from .kept_statistics import KeptStatistics
from .uploads import upload

#: Queries of half a window.
WINDOW_HALF = 64

#: Rows of numbers that make up a statistic; WINDOW is the sum of its two.
_PARTS = {
    pb.STATISTIC_ATTENTION: ("attention",),
    pb.STATISTIC_TOTAL: ("total",),
    pb.STATISTIC_PEAK: ("peak",),
    pb.STATISTIC_ANSWER: ("answer",),
    pb.STATISTIC_WINDOW: ("before", "now"),
    pb.STATISTIC_LAST: ("last",),
}
#: Highest values; all others are sums.
_HIGHEST = ("peak", "answer")


@dataclass(frozen=True)
class QuerySpan:
    """Queries of a request, in their order, after those that were counted before."""

    #: Positions of the queries.
    positions: Sequence[int]
    #: Half window of the newest query that was counted before.
    window: int


class SlotStatistics:
    """float32: 4 bytes for each slot, layer, KV head and statistic (WINDOW: 8)."""

    def __init__(self, stack: CacheStack, kept: KeptStatistics, before: "SlotStatistics | None" = None) -> None:
        """before: what was kept until now; what both keep is taken over, all else begins at 0."""
        layers, blocks, heads, size, _ = stack.keys.shape
        self._parts = {name: row for row, name in enumerate(_names(kept))}
        self._numbers = torch.zeros(len(self._parts), layers, blocks, heads, size, device=stack.keys.device)
        self._decay = 2.0 ** (-1 / kept.attention_half_life)
        self._peak_decay = 2.0 ** (-1 / kept.peak_half_life)
        self.statistics = kept.statistics
        if before is not None:
            for name in self._parts.keys() & before._parts.keys():
                self._numbers[self._parts[name]] = before._numbers[before._parts[name]]

    def clear(self, blocks: Sequence[int]) -> None:
        """Tokens that are stored in these kernel blocks from now on begin at 0."""
        if blocks:
            self._numbers[:, :, upload(blocks, self._numbers.device)] = 0

    def read(self, layers: slice, blocks: torch.Tensor) -> torch.Tensor:
        """A copy: [rows, requests * layers * kv heads, tokens of the blocks].

        blocks: int64 [requests, blocks], or [blocks] of one request.
        """
        rows = blocks if blocks.dim() == 2 else blocks[None]
        return self._numbers[:, layers][:, :, rows].permute(0, 2, 1, 4, 3, 5).flatten(4, 5).flatten(1, 3)

    def write(self, layers: slice, blocks: torch.Tensor, rows: torch.Tensor) -> None:
        """Both as in `read`."""
        of = blocks if blocks.dim() == 2 else blocks[None]
        part = self._numbers[:, layers]
        count, heads, size = part.shape[1], part.shape[3], part.shape[4]
        fresh = rows.view(len(rows), len(of), count, heads, of.shape[1], size)
        part[:, :, of] = fresh.permute(0, 2, 1, 4, 3, 5)

    def figures(self, rows: torch.Tensor) -> dict["pb.Statistic.ValueType", torch.Tensor]:
        """The kept statistics, each of the shape of a row. rows: as from `read`."""
        return {
            statistic: torch.stack([rows[self._parts[name]] for name in _PARTS[statistic]]).sum(0)
            for statistic in self.statistics
        }

    def count(self, layers: slice, blocks: torch.Tensor, weights: Weights, span: QuerySpan) -> None:
        """Counts queries of a request in the tokens of some of its blocks. weights: of these tokens alone."""
        old = self.read(layers, blocks)
        keep, add = (upload(it.tolist(), old.device, torch.float32) for it in self._sums(span))
        new = torch.einsum("rs,sgt->rgt", keep, old) + torch.einsum("rn,gnt->rgt", add, weights.mean)
        ages = torch.arange(len(span.positions) - 1, -1, -1, device=old.device)
        faded = (self._peak_decay**ages)[:, None]
        if "peak" in self._parts:
            row = self._parts["peak"]
            fresh = (weights.most * faded).amax(1)
            new[row] = torch.maximum(old[row] * self._peak_decay ** len(ages), fresh)
        if "answer" in self._parts:
            row = self._parts["answer"]
            new[row] = old[row] * self._peak_decay ** len(ages)
        self.write(layers, blocks, new)

    def count_probe(self, layers: slice, blocks: torch.Tensor, weights: Weights, ages: Sequence[int]) -> None:
        """Counts queries of an answer probe. ages: how many queries of the request came after each; may be negative."""
        rows = [self._parts[name] for name in _HIGHEST if name in self._parts]
        if not rows:
            return
        aged = self._peak_decay ** upload(ages, blocks.device, torch.float32)
        fresh = (weights.most * aged[:, None]).amax(1)
        old = self.read(layers, blocks)
        for row in rows:
            old[row] = torch.maximum(old[row], fresh)
        self.write(layers, blocks, old)

    def count_asked(self, layers: slice, blocks: torch.Tensor, weights: Weights) -> None:
        """Counts queries of an answer probe that are asked again now."""
        row = self._parts["answer"]
        old = self.read(layers, blocks)
        old[row] = torch.maximum(old[row], weights.most.amax(1))
        self.write(layers, blocks, old)

    def _sums(self, span: QuerySpan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the sums become: `keep` [rows, rows] of what they were and `add` [rows, queries] of mean weights."""
        count = len(span.positions)
        keep = np.zeros((len(self._parts), len(self._parts)))
        add = np.zeros((len(self._parts), count))
        windows = np.array(span.positions) // WINDOW_HALF
        newest = int(windows[-1])
        for name, row in self._parts.items():
            match name:
                case "attention":
                    keep[row, row] = self._decay**count
                    add[row] = self._decay ** np.arange(count - 1, -1, -1)
                case "total":
                    keep[row, row] = 1
                    add[row] = 1
                case "last":
                    add[row, -1] = 1
                case "now":
                    keep[row, row] = span.window == newest
                    add[row] = windows == newest
                case "before":
                    keep[row, row] = span.window == newest
                    keep[row, self._parts["now"]] = span.window == newest - 1
                    add[row] = windows == newest - 1
        return keep, add


def _names(kept: KeptStatistics) -> list[str]:
    return [name for statistic in kept.statistics for name in _PARTS[statistic]]
