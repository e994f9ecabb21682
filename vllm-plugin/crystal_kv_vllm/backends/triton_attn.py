"""TRITON_ATTN. Read, not run: no GPU was at hand."""

from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadataBuilder,
)

from .gpu import GPUBuilderMixin, GPUImplMixin
from .mixin import BackendMixin


class CrystalTritonAttentionMetadataBuilder(GPUBuilderMixin, TritonAttentionMetadataBuilder):
    """Compacts with the kernel."""


class CrystalTritonAttentionImpl(GPUImplMixin, TritonAttentionImpl):
    """Measures with the kernel."""


class CrystalTritonAttentionBackend(BackendMixin, TritonAttentionBackend):
    @staticmethod
    def get_builder_cls() -> type[CrystalTritonAttentionMetadataBuilder]:
        return CrystalTritonAttentionMetadataBuilder

    @staticmethod
    def get_impl_cls() -> type[CrystalTritonAttentionImpl]:
        return CrystalTritonAttentionImpl
