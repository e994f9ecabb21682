"""What every backend needs: metadata without holes, masses after the attention."""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.attention.backend import AttentionCGSupport, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec

from ..attention_weights import Scoring
from ..compact import compact_metadata
from ..graph_queries import graph_queries
from ..hole_tracker import hole_tracker
from ..mass_recorder import RecordedLayer, mass_recorder
from ..masses import RowSelection
from ..query_recorder import query_recorder
from ..spec import CrystalSpec


class BackendMixin:
    """Comes before the backend class. `get_name` stays, so that vLLM treats it as the one it replaces."""


class BuilderMixin:
    """Comes before the metadata builder class."""

    # the table that was given to `build` is not the one that attention reads
    supports_update_block_table = False

    kv_cache_spec: AttentionSpec
    vllm_config: Any

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, *args: Any, **kwargs: Any
    ) -> Any:
        if isinstance(self.kv_cache_spec, CrystalSpec):
            common_attn_metadata = self.without_holes(common_attn_metadata)
            mass_recorder.record_rows(common_attn_metadata, self.kv_cache_spec.block_size)
            query_recorder.record_rows(common_attn_metadata)
        return super().build(common_prefix_len, common_attn_metadata, *args, **kwargs)  # type: ignore[misc]

    @property
    def null_ids(self) -> int:
        """Kernel blocks in a block of the scheduler: the null block's entries are 0 up to this."""
        manager_block_size: int = self.vllm_config.cache_config.block_size
        return max(1, manager_block_size // self.kv_cache_spec.block_size)

    def without_holes(self, metadata: CommonAttentionMetadata) -> CommonAttentionMetadata:
        if not hole_tracker:
            return metadata
        return compact_metadata(metadata, self.kv_cache_spec.block_size, self.null_ids)


class UncapturedBuilderMixin(BuilderMixin):
    """Gives attention tables and lengths that are made for each batch, which a captured graph could not read.

    So vLLM is told to capture no attention, and runs it between piecewise graphs, on all ranks alike.
    """

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        if isinstance(kv_cache_spec, CrystalSpec):
            return AttentionCGSupport.NEVER
        support: AttentionCGSupport = super().get_cudagraph_support(vllm_config, kv_cache_spec)  # type: ignore[misc]
        return support


class ImplMixin:
    """Comes before the implementation class."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    scale: float
    logits_soft_cap: Any = None

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        output: torch.Tensor = super().forward(  # type: ignore[misc]
            layer, query, key, value, kv_cache, attn_metadata, *args, **kwargs
        )
        if attn_metadata is not None and kv_cache.numel():
            heads = query.view(-1, self.num_kv_heads, self.num_heads // self.num_kv_heads, self.head_size)
            graph_queries.keep(layer.layer_name, heads)
            self.record(layer.layer_name, heads, kv_cache)
        return output

    def record(self, layer: str, queries: torch.Tensor, kv_cache: torch.Tensor) -> None:
        """Takes what is wanted of a layer in this step. queries: [tokens, kv heads, heads of a group, head size]."""
        query_recorder.record_layer(layer, queries)
        rows = mass_recorder.rows_for(layer)
        if rows is not None:
            mass_recorder.record_layer(layer, RecordedLayer(self, queries[rows.tokens], kv_cache))

    @property
    def scoring(self) -> Scoring:
        """How this layer makes weights of scores."""
        return Scoring(self.scale, float(self.logits_soft_cap or 0.0), self.sink_scores)

    def keys_and_values(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of a layer's cache, [kernel blocks, kv heads, block size, head size]; keys are stored rotated."""
        return kv_cache[..., : self.head_size], kv_cache[..., self.head_size :]

    def logsumexp(self, layers: Sequence[RecordedLayer], rows: RowSelection) -> torch.Tensor:
        """Log-sum-exp of each block's scores in all the layers, which have the same scale and soft cap.

        Returns float32 [blocks, layers * kv heads, query heads of a group].
        """
        raise NotImplementedError

    @property
    def sink_scores(self) -> torch.Tensor | None:
        """Learned sink scores, [kv heads, query heads of a group]."""
        sinks: torch.Tensor | None = getattr(self, "sinks", None)
        return None if sinks is None else sinks.view(self.num_kv_heads, -1)
