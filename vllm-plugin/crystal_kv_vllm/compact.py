"""Dropping the holes of block rows before attention reads them.

Keys are stored rotated, so a token keeps its position wherever its block is in the row: attention over the resident
blocks, moved together, is attention with the evicted tokens masked.
"""

from dataclasses import replace

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata


def find_holes(block_table: torch.Tensor, seq_lens: torch.Tensor, block_size: int, null_ids: int) -> torch.Tensor:
    """Where a row has a hole: bool, [rows, blocks of the longest row].

    `null_ids` is how many kernel blocks the null block is split into: its entries are below. A row whose last block is
    null belongs to no request (profiling, padding): nothing of it counts as a hole.
    """
    blocks = torch.div(seq_lens + (block_size - 1), block_size, rounding_mode="floor").long()
    width = int(blocks.max()) if len(blocks) else 0
    null = block_table[:, :width] < null_ids
    if width == 0:
        return null
    tail = null.gather(1, (blocks - 1).clamp(min=0)[:, None])
    return null & (torch.arange(width, device=null.device)[None] < blocks[:, None]) & ~tail


def compact(
    block_table: torch.Tensor, seq_lens: torch.Tensor, block_size: int, null_ids: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Copies of table and lengths without the holes, and the holes of each row; None when there are none.

    block_table: int32 [rows, >= blocks], seq_lens: int32 [rows], in tokens, holes counted.
    """
    holes = find_holes(block_table, seq_lens, block_size, null_ids)
    counts = holes.sum(1)
    if not bool(counts.any()):
        return None
    width = holes.shape[1]
    order = torch.argsort(holes.to(torch.int8), dim=1, stable=True)
    table = block_table.clone()
    table[:, :width] = block_table[:, :width].gather(1, order)
    return table, (seq_lens - block_size * counts).to(seq_lens.dtype), counts


def compact_metadata(metadata: CommonAttentionMetadata, block_size: int, null_ids: int) -> CommonAttentionMetadata:
    """The metadata that attention is to see. Positions, slots and query lengths stay; nothing is changed in place."""
    rows = metadata.num_reqs
    compacted = compact(metadata.block_table_tensor[:rows], metadata.seq_lens[:rows], block_size, null_ids)
    if compacted is None:
        return metadata
    table, seq_lens, counts = compacted
    bound = metadata.seq_lens_cpu_upper_bound
    if bound is not None:
        bound = bound.clone()
        bound[:rows] -= (block_size * counts).to(device=bound.device, dtype=bound.dtype)
    if metadata.seq_lens.shape[0] > rows:
        seq_lens = torch.cat([seq_lens, metadata.seq_lens[rows:]])
    if metadata.block_table_tensor.shape[0] > rows:
        table = torch.cat([table, metadata.block_table_tensor[rows:]])
    return replace(
        metadata,
        block_table_tensor=table,
        seq_lens=seq_lens,
        seq_lens_cpu_upper_bound=bound,
        _num_computed_tokens_cache=None,
    )
