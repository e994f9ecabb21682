"""vLLM's manager of one layer group's blocks, with holes."""

from collections.abc import Iterable
from typing import Any

from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.request import Request


class CrystalManager(FullAttentionManager):
    """Blocks of one group. An evicted block leaves the null block in its place, so that indices never shift."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Requests that must not publish blocks: their later keys and values come from a cache with holes.
        self._private: set[str] = set()
        #: First block that goes first when the request is freed, for requests whose output nobody will read again.
        self._release_from: dict[str, int] = {}

    @property
    def free_blocks(self) -> int:
        free: int = self.block_pool.get_num_free_blocks()
        return free

    @property
    def total_blocks(self) -> int:
        """Without the null block, which is in the pool and never free."""
        blocks: int = self.block_pool.num_gpu_blocks
        return blocks - 1

    def row(self, request_id: str) -> list[KVCacheBlock]:
        """The request's blocks in logical order; empty when it has none. Not to be changed by the caller."""
        return self.req_to_blocks.get(request_id, [])

    def holes(self, request_id: str) -> list[int]:
        return [index for index, block in enumerate(self.row(request_id)) if block.is_null]

    def punch(self, request_id: str, indices: Iterable[int]) -> None:
        """Turns blocks into holes and gives them back. The indices must be of resident blocks."""
        row = self.req_to_blocks[request_id]
        freed = []
        for index in indices:
            freed.append(row[index])
            row[index] = self._null_block
        if freed:
            self.block_pool.free_blocks(freed)
            self.keep_private(request_id)

    def withdraw(self, request_id: str, indices: Iterable[int]) -> None:
        """Blocks that only this request uses are to change: the prefix cache forgets them."""
        for index in indices:
            self.block_pool._maybe_evict_cached_block(self.req_to_blocks[request_id][index])

    def keep_private(self, request_id: str) -> None:
        """From now on the request publishes nothing in the prefix cache, until its blocks are freed."""
        self._private.add(request_id)

    def release_from(self, request_id: str, first: int) -> None:
        """When the request is freed, its blocks from `first` on are reused before all others, and found by nobody."""
        self._release_from[request_id] = first

    def cache_blocks(self, request: Request, num_tokens: int, *args: Any, **kwargs: Any) -> None:
        # a probe has no hashes, also when it was preempted and is not private any more
        if request.request_id not in self._private and request.block_hashes:
            super().cache_blocks(request, num_tokens, *args, **kwargs)

    def pop_blocks_for_free(self, request_id: str) -> list[KVCacheBlock]:
        self._private.discard(request_id)
        first = self._release_from.pop(request_id, None)
        blocks = super().pop_blocks_for_free(request_id)
        if first is not None:
            for block in blocks[first:]:
                # a block that another request uses keeps its hash
                if block.ref_cnt == 1 and not block.is_null:
                    self.block_pool._maybe_evict_cached_block(block)
        return blocks
