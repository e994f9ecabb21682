"""The KV cache spec by which vLLM gives a layer group the manager that can evict."""

from dataclasses import dataclass, fields

from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec


@dataclass(frozen=True, kw_only=True)
class CrystalSpec(FullAttentionSpec):
    """Full attention over a block row that may have holes. Same memory layout as its base."""


def evictable_spec(spec: AttentionSpec) -> AttentionSpec:
    """`spec` as a CrystalSpec, if it is plain full attention; any other spec as it is."""
    plain = type(spec) is FullAttentionSpec and spec.sliding_window is None and spec.attention_chunk_size is None
    if not plain or spec.non_causal:
        return spec
    return CrystalSpec(**{field.name: getattr(spec, field.name) for field in fields(spec) if field.init})
