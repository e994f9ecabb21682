"""FLASHINFER. Read, not run: no GPU was at hand."""

from vllm.v1.attention.backends.flashinfer import FlashInferBackend, FlashInferImpl, FlashInferMetadataBuilder

from .gpu import GPUImplMixin
from .mixin import BackendMixin, UncapturedBuilderMixin


class CrystalFlashInferMetadataBuilder(UncapturedBuilderMixin, FlashInferMetadataBuilder):
    """Compacts with torch: the base class plans from lengths on the host, which must be exact."""


class CrystalFlashInferImpl(GPUImplMixin, FlashInferImpl):
    """Measures with the kernel."""


class CrystalFlashInferBackend(BackendMixin, FlashInferBackend):
    @staticmethod
    def get_builder_cls() -> type[CrystalFlashInferMetadataBuilder]:
        return CrystalFlashInferMetadataBuilder

    @staticmethod
    def get_impl_cls() -> type[CrystalFlashInferImpl]:
        return CrystalFlashInferImpl
