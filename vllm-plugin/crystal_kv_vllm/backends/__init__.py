"""vLLM's attention backends with holes in their block tables; one module each, imported only when it is chosen."""

from collections.abc import Iterator
from contextlib import contextmanager

#: vLLM's name of an attention backend, and the class that replaces it.
BACKENDS = {
    "CPU_ATTN": "crystal_kv_vllm.backends.cpu_attn.CrystalCPUBackend",
    "FLASH_ATTN": "crystal_kv_vllm.backends.flash_attn.CrystalFlashAttentionBackend",
    "TRITON_ATTN": "crystal_kv_vllm.backends.triton_attn.CrystalTritonAttentionBackend",
    "FLASHINFER": "crystal_kv_vllm.backends.flashinfer.CrystalFlashInferBackend",
}


@contextmanager
def replaced_backends() -> Iterator[None]:
    """Gives these classes to the layers that are made inside; afterwards vLLM's registry is as it was.

    A backend that another plugin has replaced stays that plugin's.
    """
    from vllm.v1.attention import selector
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    replaced = [backend for name in BACKENDS if not (backend := AttentionBackendEnum[name]).is_overridden()]
    # it remembers what it chose for other engines of this process
    selector._cached_get_attn_backend.cache_clear()
    for backend in replaced:
        register_backend(backend, BACKENDS[backend.name])
    try:
        yield
    finally:
        for backend in replaced:
            backend.clear_override()
        selector._cached_get_attn_backend.cache_clear()
