"""CPU_ATTN: vLLM's paged attention on CPUs."""

from collections.abc import Sequence

import torch
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from ..mass_recorder import RecordedLayer
from ..masses import RowSelection, block_logsumexp
from .mixin import BackendMixin, BuilderMixin, ImplMixin


class CrystalCPUMetadataBuilder(BuilderMixin, CPUAttentionMetadataBuilder):
    """The lengths are reduced before the base class plans its work by them."""


class CrystalCPUImpl(ImplMixin, CPUAttentionBackendImpl):
    def keys_and_values(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        blocks, heads, block_size, _ = kv_cache.shape
        keys, values = kv_cache.view(blocks, heads, 2, -1).unbind(2)
        return (
            keys.view(blocks, heads, self.head_size, block_size).transpose(2, 3),
            values.view(blocks, heads, block_size, self.head_size),
        )

    def logsumexp(self, layers: Sequence[RecordedLayer], rows: RowSelection) -> torch.Tensor:
        # A block of a head is its keys, then its values. Keys are stored column by column, [head size, block size],
        # except for AMX, which packs them in pairs and which the plugin refuses.
        blocks, heads, block_size, _ = layers[0].kv_cache.shape
        places = ((rows.blocks[:, None] * heads + torch.arange(heads)) * 2).flatten()
        keys = torch.empty(len(layers), len(places), self.head_size * block_size, dtype=layers[0].kv_cache.dtype)
        for layer, out in zip(layers, keys, strict=True):
            halves = layer.kv_cache.view(blocks * heads * 2, self.head_size * block_size)
            # a copy of whole rows is much faster than indexing
            torch.index_select(halves, 0, places, out=out)
        lse = block_logsumexp(
            torch.stack([layer.query for layer in layers]),
            keys.view(len(layers), -1, heads, self.head_size, block_size),
            rows,
            self.scale,
            self.logits_soft_cap or 0.0,
        )
        return lse.transpose(0, 1).flatten(1, 2)


class CrystalCPUBackend(BackendMixin, CPUAttentionBackend):
    @staticmethod
    def get_builder_cls() -> type[CrystalCPUMetadataBuilder]:
        return CrystalCPUMetadataBuilder

    @staticmethod
    def get_impl_cls() -> type[CrystalCPUImpl]:
        return CrystalCPUImpl
