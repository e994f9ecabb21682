"""Crystal-KV for stock vLLM: loaded through the entry point `vllm.general_plugins`."""

import logging
import os

logger = logging.getLogger("vllm.crystal_kv")

#: vLLM's name of an attention backend, and the class that replaces it. A module is imported when its backend is chosen.
BACKENDS = {
    "CPU_ATTN": "crystal_kv_vllm.backends.cpu_attn.CrystalCPUBackend",
    "FLASH_ATTN": "crystal_kv_vllm.backends.flash_attn.CrystalFlashAttentionBackend",
    "TRITON_ATTN": "crystal_kv_vllm.backends.triton_attn.CrystalTritonAttentionBackend",
    "FLASHINFER": "crystal_kv_vllm.backends.flashinfer.CrystalFlashInferBackend",
}


def register() -> None:
    """Tells vLLM of the spec, its manager and the attention backends. In every process, maybe several times."""
    from .settings import SettingsError, read_settings

    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        # vLLM would log an exception of a plugin and go on with half of it
        raise SystemExit(f"crystal-kv: {error}") from error
    if not settings.enabled:
        return
    import vllm

    from .compat import NotSupportedError, version_refusals

    refusals = list(version_refusals(vllm.__version__))
    if refusals:
        why = "; ".join(refusal.why for refusal in refusals)
        if settings.strict:
            raise NotSupportedError(f"crystal-kv is not active: {why}")
        logger.warning("crystal-kv is not active, vLLM runs as stock: %s", why)
        return

    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

    from .manager import CrystalManager
    from .spec import CrystalSpec

    # first vLLM's own: it does not register them once the registry holds anything
    KVCacheSpecRegistry._ensure_registered()
    KVCacheSpecRegistry.register(CrystalSpec, CrystalManager, FullAttentionSpec)
    for name, path in BACKENDS.items():
        register_backend(AttentionBackendEnum[name], path)
