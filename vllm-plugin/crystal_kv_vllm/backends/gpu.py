"""What the GPU backends share: kernels instead of torch, and buffers that stay where they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from ..kernels import compact_into, paged_logsumexp
from ..mass_recorder import RecordedLayer
from ..masses import RowSelection
from .mixin import BuilderMixin, ImplMixin


class GPUBuilderMixin(BuilderMixin):
    """Compacts every batch on the device, holes or not: asking for holes would wait for it.

    Attention reads the buffers of this builder, also the attention in captured graphs: they are filled when a graph is
    captured, and before each replay.
    """

    _table: torch.Tensor | None = None
    _lens: torch.Tensor
    _captured = False

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> Any:
        self._captured = True
        return super().build_for_cudagraph_capture(common_attn_metadata)  # type: ignore[misc]

    def without_holes(self, metadata: CommonAttentionMetadata) -> CommonAttentionMetadata:
        rows, width = metadata.block_table_tensor.shape
        if self._table is None or self._table.shape[0] < rows or self._table.shape[1] < width:
            # else the graph would go on reading the old ones
            assert self._table is None or not self._captured, "a batch is larger than the largest that was captured"
            max_rows = max(rows, self.vllm_config.scheduler_config.max_num_seqs)
            self._table = torch.zeros((max_rows, width), dtype=torch.int32, device=metadata.block_table_tensor.device)
            self._lens = torch.zeros(max_rows, dtype=torch.int32, device=metadata.block_table_tensor.device)
        table, lens = self._table[:rows, :width], self._lens[: metadata.seq_lens.shape[0]]
        lens.copy_(metadata.seq_lens)
        compact_into(
            metadata.block_table_tensor[: metadata.num_reqs],
            metadata.seq_lens[: metadata.num_reqs],
            table,
            lens,
            self.kv_cache_spec.block_size,
            self.null_ids,
        )
        # the upper bound of the lengths stays one
        return replace(metadata, block_table_tensor=table, seq_lens=lens, _num_computed_tokens_cache=None)


class GPUImplMixin(ImplMixin):
    def logsumexp(self, layers: Sequence[RecordedLayer], rows: RowSelection) -> torch.Tensor:
        softcap = float(self.logits_soft_cap or 0.0)
        return torch.cat([paged_logsumexp(it.query, it.kv_cache, rows, self.scale, softcap) for it in layers], 1)
