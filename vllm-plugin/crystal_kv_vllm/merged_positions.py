"""Which token is where in merged blocks. In every other block the token of position p is in slot p % block size."""

from collections.abc import Iterable, Sequence

import torch


class MergedPositions:
    """Of the requests of a worker, for the layers of one stack. Blocks are logical blocks of the attention kernel."""

    def __init__(self, layers: int, kv_heads: int, block_size: int, device: torch.device) -> None:
        self._shape = (layers, kv_heads)
        self._block_size = block_size
        self._device = device
        #: By request: its merged blocks, and int32 [layers, kv heads, blocks, block size].
        self._merged: dict[str, tuple[list[int], torch.Tensor]] = {}

    def __len__(self) -> int:
        """Requests with merged blocks."""
        return len(self._merged)

    def forget(self, request_ids: Iterable[str]) -> None:
        """The caches of these requests are gone."""
        for request_id in request_ids:
            self._merged.pop(request_id, None)

    def of(self, request_id: str, blocks: Sequence[int]) -> torch.Tensor:
        """Positions of the tokens in some blocks: int32 [layers * kv heads, tokens]."""
        index = torch.tensor(blocks, dtype=torch.int32, device=self._device)
        inside = torch.arange(self._block_size, dtype=torch.int32, device=self._device)
        positions = (index[:, None] * self._block_size + inside).expand(*self._shape, -1, -1)
        merged, known = self._merged.get(request_id, ([], inside))
        wanted = {block: place for place, block in enumerate(blocks)}
        places = [(wanted[block], place) for place, block in enumerate(merged) if block in wanted]
        if places:
            target, source = (torch.tensor(of, device=self._device) for of in zip(*places, strict=True))
            positions = positions.index_copy(2, target, known[:, :, source])
        return positions.reshape(self._shape[0] * self._shape[1], -1)

    def merge(self, request_id: str, into: Sequence[int], given: Sequence[int], positions: torch.Tensor) -> None:
        """`into` holds these tokens now, int32 [layers * kv heads, tokens], and `given` none."""
        fresh = positions.view(*self._shape, len(into), self._block_size)
        gone = {*into, *given}
        merged, known = self._merged.get(request_id, ([], fresh))
        stay = [place for place, block in enumerate(merged) if block not in gone]
        if stay:
            fresh = torch.cat([fresh, known[:, :, torch.tensor(stay, device=self._device)]], 2)
        self._merged[request_id] = ([*into, *(merged[place] for place in stay)], fresh)
