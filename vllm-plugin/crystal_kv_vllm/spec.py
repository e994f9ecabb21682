"""The KV cache spec by which vLLM gives a layer group the manager that can evict.

Whoever holds such a spec has imported this module, which tells vLLM's registry of it: so does unpickling one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from .manager import CrystalManager


@dataclass(frozen=True, kw_only=True)
class CrystalSpec(FullAttentionSpec):
    """Full attention over a block row that may have holes. Same memory layout as its base."""


def evictable_specs(specs: Mapping[str, KVCacheSpec]) -> dict[str, KVCacheSpec]:
    """The specs of all layers of a model that `cache_refusals` says nothing against, as CrystalSpecs."""
    return {
        layer: CrystalSpec(**{field.name: getattr(spec, field.name) for field in fields(spec) if field.init})
        for layer, spec in specs.items()
    }


# first vLLM's own: it does not register them once the registry holds anything
KVCacheSpecRegistry._ensure_registered()
KVCacheSpecRegistry.register(CrystalSpec, CrystalManager, FullAttentionSpec)
