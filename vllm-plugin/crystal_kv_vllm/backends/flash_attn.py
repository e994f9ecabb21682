"""FLASH_ATTN. Read, not run: no GPU was at hand."""

from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from .gpu import GPUBuilderMixin, GPUImplMixin
from .mixin import BackendMixin


class CrystalFlashAttentionMetadataBuilder(GPUBuilderMixin, FlashAttentionMetadataBuilder):
    """Compacts with the kernel."""


class CrystalFlashAttentionImpl(GPUImplMixin, FlashAttentionImpl):
    """Measures with the kernel."""


class CrystalFlashAttentionBackend(BackendMixin, FlashAttentionBackend):
    @staticmethod
    def get_builder_cls() -> type[CrystalFlashAttentionMetadataBuilder]:
        return CrystalFlashAttentionMetadataBuilder

    @staticmethod
    def get_impl_cls() -> type[CrystalFlashAttentionImpl]:
        return CrystalFlashAttentionImpl
