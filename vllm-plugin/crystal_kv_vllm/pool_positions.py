"""Which token is where in merged blocks. In every other block the token of position p is in slot p % block size."""

from collections.abc import Iterable, Sequence

import torch

from .cache_stack import CacheStack
from .worker_io import TableEntry

#: In place of a logical block: its positions are in the table.
IN_TABLE = -1


class PoolPositions:
    """Of a stack of layers, for every slot of the pool: int32, 4 bytes a slot, layer and KV head. Kernel blocks."""

    def __init__(self, stack: CacheStack) -> None:
        layers, blocks, heads, size, _ = stack.keys.shape
        #: [layers, blocks, kv heads, block size]; of blocks that were never merged, so of the null block too: -1.
        self.table = torch.full((layers, blocks, heads, size), -1, dtype=torch.int32, device=stack.keys.device)
        #: Merged blocks of each request, by their logical number.
        self._merged: dict[str, set[int]] = {}

    def forget(self, request_ids: Iterable[str]) -> None:
        """The caches of these requests are gone."""
        for request_id in request_ids:
            self._merged.pop(request_id, None)

    def logical(self, request_id: str, entries: Sequence[TableEntry]) -> list[int]:
        """Of blocks of a request, as `read` takes them."""
        merged = self._merged.get(request_id, ())
        return [IN_TABLE if entry.index in merged else entry.index for entry in entries]

    def read(self, layers: slice, blocks: torch.Tensor, logical: torch.Tensor) -> torch.Tensor:
        """Positions of the tokens in some blocks: int32 [requests * layers * kv heads, tokens].

        blocks, logical: int64 [requests, blocks]
        """
        known = self.table[layers][:, blocks]
        size = known.shape[-1]
        inside = torch.arange(size, dtype=torch.int32, device=blocks.device)
        plain = logical.int()[None, :, :, None, None] * size + inside
        positions = torch.where(logical[None, :, :, None, None] == IN_TABLE, known, plain)
        # [layers, requests, blocks, heads, size]
        return positions.permute(1, 0, 3, 2, 4).flatten(3, 4).flatten(0, 2)

    def write(self, layers: slice, blocks: torch.Tensor, positions: torch.Tensor) -> None:
        """blocks: int64 [requests, blocks]; positions: as from `read`."""
        table = self.table[layers]
        some = positions.view(len(blocks), len(table), table.shape[2], blocks.shape[1], -1)
        table[:, blocks] = some.permute(1, 0, 3, 2, 4).int()

    def merged(self, request_id: str, into: Iterable[TableEntry], given: Iterable[TableEntry]) -> None:
        """From now on the positions of `into` are in the table, and `given` hold nothing."""
        merged = self._merged.setdefault(request_id, set())
        merged.update(entry.index for entry in into)
        merged.difference_update(entry.index for entry in given)
