"""CPU_ATTN: vLLM's paged attention on CPUs."""

import torch
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from ..masses import RowSelection, block_logsumexp
from .mixin import BackendMixin, BuilderMixin, ImplMixin


class CrystalCPUMetadataBuilder(BuilderMixin, CPUAttentionMetadataBuilder):
    """The lengths are reduced before the base class plans its work by them."""


class CrystalCPUImpl(ImplMixin, CPUAttentionBackendImpl):
    def logsumexp(self, query: torch.Tensor, kv_cache: torch.Tensor, rows: RowSelection) -> torch.Tensor:
        # A block of a head is its keys, then its values. Keys are stored column by column, [head size, block size],
        # except for AMX, which packs them in pairs and which the plugin refuses.
        blocks, heads, block_size, _ = kv_cache.shape
        halves = kv_cache.view(blocks * heads * 2, self.head_size * block_size)
        places = (rows.blocks[:, None] * heads + torch.arange(heads)) * 2
        # a copy of whole rows is much faster than indexing
        keys = halves.index_select(0, places.flatten()).view(-1, heads, self.head_size, block_size)
        return block_logsumexp(query, keys, rows, self.scale, self.logits_soft_cap or 0.0)


class CrystalCPUBackend(BackendMixin, CPUAttentionBackend):
    @staticmethod
    def get_builder_cls() -> type[CrystalCPUMetadataBuilder]:
        return CrystalCPUMetadataBuilder

    @staticmethod
    def get_impl_cls() -> type[CrystalCPUImpl]:
        return CrystalCPUImpl
