"""Attention of one query a request over a paged cache, flash-style: what the plugin's own work is compared with."""

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _decode_kernel(
    query: Any, cache: Any, table: Any, lengths: Any, out: Any, sums: Any, scale: Any,
    table_stride: Any, stride_block: Any, stride_head: Any, stride_token: Any, kv_heads: Any, per_split: Any,
    GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    of = tl.arange(0, GROUP_PAD)
    channel = tl.arange(0, HEAD)
    place = ((row * kv_heads + head) * GROUP + of)[:, None] * HEAD + channel[None, :]
    vectors = tl.load(query + place, mask=(of < GROUP)[:, None], other=0.0)
    highest = tl.full([GROUP_PAD], -1e30, tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    mixed = tl.zeros([GROUP_PAD, HEAD], tl.float32)
    end = tl.minimum(length, (split + 1) * per_split)
    for start in range(split * per_split, end, TILE):
        token = start + tl.arange(0, TILE)
        inside = token < end
        block = tl.load(table + row * table_stride + token // BLOCK, mask=inside, other=0).to(tl.int64)
        at = cache + block * stride_block + head * stride_head + (token % BLOCK) * stride_token
        keys = tl.load(at[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
        values = tl.load(at[:, None] + HEAD + channel[None, :], mask=inside[:, None], other=0.0)
        scores = tl.where(inside[None, :], tl.dot(vectors, tl.trans(keys)) * scale, -1e30)
        peak = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.where(inside[None, :], tl.exp(scores - peak[:, None]), 0.0)
        fade = tl.exp(highest - peak)
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(values.dtype), values)
        highest = peak
    part = (split * tl.num_programs(0) + row) * kv_heads + head
    tl.store(out + (part * GROUP + of)[:, None] * HEAD + channel[None, :],
             mixed / tl.maximum(total, 1e-30)[:, None], mask=(of < GROUP)[:, None])  # fmt: skip
    tl.store(sums + part * GROUP + of, highest + tl.log(tl.maximum(total, 1e-30)), mask=of < GROUP)


class Decode:
    """With buffers of its own, so that it can be captured in a graph."""

    def __init__(self, rows: int, kv_heads: int, group: int, head: int, most: int, device: torch.device) -> None:
        """most: tokens of a row."""
        self._splits = max(1, min(32, most // 512))
        self._per_split = -(-most // self._splits // 64) * 64
        self._parts = torch.empty(self._splits, rows, kv_heads, group, head, device=device)
        self._sums = torch.empty(self._splits, rows, kv_heads, group, device=device)

    def __call__(
        self, query: torch.Tensor, cache: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """query: [rows, kv heads, group, head]; cache: [blocks, kv heads, block size, 2 * head]. Returns float32."""
        rows, kv_heads, group, head = query.shape
        _decode_kernel[(rows, kv_heads, self._splits)](
            query, cache, table, lengths, self._parts, self._sums, scale, table.stride(0), cache.stride(0),
            cache.stride(1), cache.stride(2), kv_heads, self._per_split, GROUP=group, GROUP_PAD=max(16, group),
            HEAD=head, BLOCK=cache.shape[2], TILE=64,
        )  # fmt: skip
        return (self._parts * self._sums.softmax(0)[..., None]).sum(0)
