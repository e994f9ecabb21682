"""Triton kernels for GPUs: compaction without a wait for the device, and block masses without a copy of the keys."""

from typing import Any

import torch
from vllm.triton_utils import tl, triton

from .masses import RowSelection


@triton.jit  # type: ignore[untyped-decorator]
def _compact_kernel(
    table: Any,
    lengths: Any,
    out_table: Any,
    out_lengths: Any,
    table_stride: Any,
    out_stride: Any,
    block_size: Any,
    null_ids: Any,
    CHUNK: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0)
    length = tl.load(lengths + row)
    blocks = (length + block_size - 1) // block_size
    # a row whose last block is null is of no request (profiling, padding): all of it stays
    tail = tl.load(table + row * table_stride + tl.maximum(blocks - 1, 0))
    lowest = tl.where(tail < null_ids, 0, null_ids)
    kept = 0
    for start in range(0, blocks, CHUNK):
        place = start + tl.arange(0, CHUNK)
        inside = place < blocks
        entry = tl.load(table + row * table_stride + place, mask=inside, other=0)
        keep = (inside & (entry >= lowest)).to(tl.int32)
        tl.store(out_table + row * out_stride + kept + tl.cumsum(keep, 0) - 1, entry, mask=keep == 1)
        kept += tl.sum(keep, 0)
    tl.store(out_lengths + row, length - (blocks - kept) * block_size)


def compact_into(
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out_table: torch.Tensor,
    out_lens: torch.Tensor,
    block_size: int,
    null_ids: int,
) -> None:
    """`compact` of the module of that name, into given buffers, for rows with and without holes alike."""
    rows = seq_lens.shape[0]
    if rows:
        _compact_kernel[(rows,)](
            block_table,
            seq_lens,
            out_table,
            out_lens,
            block_table.stride(0),
            out_table.stride(0),
            block_size,
            null_ids,
            CHUNK=256,
        )


@triton.jit  # type: ignore[untyped-decorator]
def _logsumexp_kernel(
    query: Any,
    cache: Any,
    blocks: Any,
    row_of: Any,
    filled: Any,
    out: Any,
    scale: Any,
    softcap: Any,
    stride_block: Any,
    stride_head: Any,
    stride_token: Any,
    kv_heads: Any,
    HEADS: tl.constexpr,  # noqa: N803
    HEAD_SIZE: tl.constexpr,  # noqa: N803
    HEAD_PAD: tl.constexpr,  # noqa: N803
    BLOCK_PAD: tl.constexpr,  # noqa: N803
    HAS_SOFTCAP: tl.constexpr,  # noqa: N803
) -> None:
    place = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    token = tl.arange(0, BLOCK_PAD)
    channel = tl.arange(0, HEAD_PAD)
    used = token < tl.load(filled + place)
    start = tl.load(blocks + place) * stride_block + kv_head * stride_head
    mask = used[:, None] & (channel < HEAD_SIZE)[None, :]
    keys = tl.load(cache + start + token[:, None] * stride_token + channel[None, :], mask=mask, other=0.0)
    row = tl.load(row_of + place)
    for head in tl.static_range(HEADS):
        index = (row * kv_heads + kv_head) * HEADS + head
        vector = tl.load(query + index * HEAD_SIZE + channel, mask=channel < HEAD_SIZE, other=0.0)
        scores = tl.sum(keys.to(tl.float32) * vector.to(tl.float32)[None, :], 1) * scale
        if HAS_SOFTCAP:
            # tanh by exp, which every Triton has
            scores = softcap * (1 - 2 / (tl.exp(2 * scores / softcap) + 1))
        scores = tl.where(used, scores, float("-inf"))
        highest = tl.max(scores, 0)
        total = tl.sum(tl.exp(scores - highest), 0)
        tl.store(out + (place * kv_heads + kv_head) * HEADS + head, highest + tl.log(total))


def paged_logsumexp(
    query: torch.Tensor, kv_cache: torch.Tensor, rows: RowSelection, scale: float, softcap: float = 0.0
) -> torch.Tensor:
    """`block_logsumexp` read from the paged cache.

    query: [rows, kv heads, query heads of a group, head size]; kv_cache: [blocks, kv heads, block size, 2 * head size]
    with any strides but 1 for the last, keys before values.
    """
    _, kv_heads, heads, head_size = query.shape
    block_size = kv_cache.shape[2]
    out = torch.empty((len(rows.blocks), kv_heads, heads), dtype=torch.float32, device=query.device)
    _logsumexp_kernel[(len(rows.blocks), kv_heads)](
        query.contiguous(),
        kv_cache,
        rows.blocks,
        rows.row_of,
        rows.filled,
        out,
        scale,
        softcap or 1.0,
        kv_cache.stride(0),
        kv_cache.stride(1),
        kv_cache.stride(2),
        kv_heads,
        HEADS=heads,
        HEAD_SIZE=head_size,
        HEAD_PAD=triton.next_power_of_2(head_size),
        BLOCK_PAD=triton.next_power_of_2(block_size),
        HAS_SOFTCAP=bool(softcap),
    )
    return out
