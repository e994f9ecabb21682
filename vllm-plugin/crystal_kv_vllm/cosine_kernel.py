"""A Triton kernel for merges: keys or values are compared where they lie, of all layers and requests in one launch.

Imports nothing but torch and Triton, so that it can be checked without vLLM.
"""

from typing import Any

import torch
import triton
import triton.language as tl

#: Tokens that a program compares with as many others at a time.
TILE = 64


@triton.jit  # type: ignore[untyped-decorator]
def _unit_vectors(
    cache: Any,
    blocks: Any,
    logical: Any,
    table: Any,
    cos_sin: Any,
    token: Any,
    inside: Any,
    stride_block: Any,
    stride_token: Any,
    stride_channel: Any,
    table_block: Any,
    cos_stride: Any,
    SIZE: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    HALF_PAD: tl.constexpr,  # noqa: N803
    REST: tl.constexpr,  # noqa: N803
    REST_PAD: tl.constexpr,  # noqa: N803
    STEP: tl.constexpr,  # noqa: N803
    SECOND: tl.constexpr,  # noqa: N803
    ROTATED: tl.constexpr,  # noqa: N803
) -> Any:
    """Positions of some tokens, and three parts of their vectors: first and second of the pairs, and the rest."""
    block = tl.load(blocks + token // SIZE, mask=inside, other=0)
    known = tl.load(logical + token // SIZE, mask=inside, other=-1)
    slot = token % SIZE
    moved = tl.load(table + block * table_block + slot, mask=inside, other=-1)
    position = tl.where(known < 0, moved, known * SIZE + slot)
    at = cache + block * stride_block + slot * stride_token
    channel = tl.arange(0, HALF_PAD)
    mask = inside[:, None] & (channel < HALF)[None, :]
    first = tl.load(at[:, None] + (channel * STEP)[None, :] * stride_channel, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at[:, None] + (channel * STEP + SECOND)[None, :] * stride_channel, mask=mask, other=0.0).to(
        tl.float32
    )
    if ROTATED:
        angle = cos_sin + tl.maximum(position, 0)[:, None] * cos_stride + channel[None, :]
        cos = tl.load(angle, mask=mask, other=0.0).to(tl.float32)
        sin = tl.load(angle + HALF, mask=mask, other=0.0).to(tl.float32)
        turned = first * cos + second * sin
        second = second * cos - first * sin
        first = turned
    square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    rest = first
    if REST:
        other = tl.arange(0, REST_PAD)
        rest = tl.load(
            at[:, None] + (2 * HALF + other)[None, :] * stride_channel,
            mask=inside[:, None] & (other < REST)[None, :],
            other=0.0,
        ).to(tl.float32)
        square += tl.sum(rest * rest, 1)
    # as torch's normalize
    shrink = (1.0 / tl.maximum(tl.sqrt(square), 1e-12))[:, None]
    return position, first * shrink, second * shrink, rest * shrink


@triton.jit  # type: ignore[untyped-decorator]
def _highest_cosines_kernel(
    cache: Any,
    blocks: Any,
    logical: Any,
    table: Any,
    cos_sin: Any,
    out: Any,
    own: Any,
    count: Any,
    blocks_stride: Any,
    logical_stride: Any,
    heads: Any,
    stride_layer: Any,
    stride_block: Any,
    stride_head: Any,
    stride_token: Any,
    stride_channel: Any,
    table_layer: Any,
    table_block: Any,
    table_head: Any,
    cos_stride: Any,
    SIZE: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    HALF_PAD: tl.constexpr,  # noqa: N803
    REST: tl.constexpr,  # noqa: N803
    REST_PAD: tl.constexpr,  # noqa: N803
    STEP: tl.constexpr,  # noqa: N803
    SECOND: tl.constexpr,  # noqa: N803
    ROTATED: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
    TILE: tl.constexpr,  # noqa: N803
) -> None:
    group = tl.program_id(0).to(tl.int64)
    request = tl.program_id(2).to(tl.int64)
    layer, head = group // heads, group % heads
    cache += layer * stride_layer + head * stride_head
    table += layer * table_layer + head * table_head
    blocks += request * blocks_stride
    logical += request * logical_stride
    token = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = token < own
    position, first, second, rest = _unit_vectors(
        cache, blocks, logical, table, cos_sin, token, inside, stride_block, stride_token, stride_channel, table_block,
        cos_stride, SIZE, HALF, HALF_PAD, REST, REST_PAD, STEP, SECOND, ROTATED,
    )  # fmt: skip
    oldest = tl.min(tl.where(inside, position, 1 << 30), 0)
    highest = tl.full([TILE], -1.0, tl.float32)
    for start in range(0, count, TILE):
        there = start + tl.arange(0, TILE)
        later, other_first, other_second, other_rest = _unit_vectors(
            cache, blocks, logical, table, cos_sin, there, there < count, stride_block, stride_token, stride_channel,
            table_block, cos_stride, SIZE, HALF, HALF_PAD, REST, REST_PAD, STEP, SECOND, ROTATED,
        )  # fmt: skip
        if tl.max(later, 0) > oldest:
            cosines = tl.dot(first, tl.trans(other_first), input_precision=PRECISION)
            cosines += tl.dot(second, tl.trans(other_second), input_precision=PRECISION)
            if REST:
                cosines += tl.dot(rest, tl.trans(other_rest), input_precision=PRECISION)
            cosines = tl.where(later[None, :] > position[:, None], cosines, -1.0)
            highest = tl.maximum(highest, tl.max(cosines, 1))
    place = (request * tl.num_programs(0) + group) * own + token
    tl.store(out + place, highest, mask=inside)


@torch.library.custom_op("crystal_kv::highest_cosines", mutates_args=())
def highest_cosines(
    cache: torch.Tensor,
    blocks: torch.Tensor,
    logical: torch.Tensor,
    table: torch.Tensor,
    own: int,
    cos_sin: torch.Tensor | None,
    halves: bool,
) -> torch.Tensor:
    """Of each token in the first `own` blocks, the highest cosine with a token at a later position; -1: there is none.

    cache: [layers, kernel blocks, kv heads, block size, head size]; blocks and logical: int64 [requests, blocks], as
    `PoolPositions.read` takes them, with its `table`; cos_sin: None: vectors are compared as stored; halves: see
    `Rotation`. Returns float32 [requests * layers * kv heads, own * block size]. It needs no memory beside that.
    """
    layers, _, heads, size, width = cache.shape
    half = width // 2 if cos_sin is None else cos_sin.shape[1] // 2
    rest = width - 2 * half
    out = torch.empty((len(blocks) * layers * heads, own * size), dtype=torch.float32, device=cache.device)
    grid = (layers * heads, triton.cdiv(own * size, TILE), len(blocks))
    _highest_cosines_kernel[grid](
        cache,
        blocks,
        logical,
        table,
        cache if cos_sin is None else cos_sin,
        out,
        own * size,
        blocks.shape[1] * size,
        blocks.stride(0),
        logical.stride(0),
        heads,
        *cache.stride(),
        table.stride(0),
        table.stride(1),
        table.stride(2),
        0 if cos_sin is None else cos_sin.stride(0),
        SIZE=size,
        HALF=half,
        # what tl.dot asks for at least
        HALF_PAD=max(16, triton.next_power_of_2(half)),
        REST=rest,
        REST_PAD=max(16, triton.next_power_of_2(max(1, rest))),
        STEP=1 if halves or cos_sin is None else 2,
        SECOND=half if halves or cos_sin is None else 1,
        ROTATED=cos_sin is not None,
        # near float32, on tensor cores
        PRECISION="ieee" if torch.version.cuda is None else "tf32x3",
        TILE=TILE,
    )
    return out


@highest_cosines.register_fake
def _(
    cache: torch.Tensor,
    blocks: torch.Tensor,
    logical: torch.Tensor,
    table: torch.Tensor,
    own: int,
    cos_sin: torch.Tensor | None,
    halves: bool,
) -> torch.Tensor:
    layers, _, heads, size, _ = cache.shape
    return cache.new_empty((blocks.shape[0] * layers * heads, own * size), dtype=torch.float32)
