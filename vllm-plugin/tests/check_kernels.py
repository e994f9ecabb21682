"""Checks the GPU kernels against torch with Triton's interpreter; `test_kernels` starts it as a process of its own."""

# before torch
import interpreter  # noqa: F401
import torch

from crystal_kv_vllm.cache_stack import CacheStack
from crystal_kv_vllm.compact import compact
from crystal_kv_vllm.cosine_kernel import highest_cosines as kernel_cosines
from crystal_kv_vllm.kernels import compact_into, paged_logsumexp
from crystal_kv_vllm.masses import block_logsumexp, select_rows
from crystal_kv_vllm.merge_candidates import MergeCandidates
from crystal_kv_vllm.pool_positions import PoolPositions
from crystal_kv_vllm.rotation import Rotation
from crystal_kv_vllm.token_figures import highest_cosines


def check_compaction(block_size: int, null_ids: int, rows: int, width: int) -> None:
    lengths = torch.randint(1, block_size * width, (rows,), dtype=torch.int32)
    table = torch.randint(null_ids, 1000, (rows, width), dtype=torch.int32)
    for row in range(rows):
        blocks = -(-int(lengths[row]) // block_size)
        for block in range(blocks - 1):
            if torch.rand(()) < 0.4:
                table[row, block] = block % null_ids
    # a padded row: all zero, with a length
    table[rows - 1] = 0
    out_table, out_lengths = torch.full_like(table, -1), torch.full_like(lengths, -1)
    compact_into(table, lengths, out_table, out_lengths, block_size, null_ids)
    wanted = compact(table, lengths, block_size, null_ids)
    assert wanted is not None
    assert torch.equal(out_lengths, wanted[1])
    for row in range(rows):
        count = -(-int(out_lengths[row]) // block_size)
        assert torch.equal(out_table[row, :count], wanted[0][row, :count]), row


def check_masses(block_size: int, head_size: int, softcap: float, head_major: bool) -> None:
    kv_heads, heads = 2, 3
    lengths = torch.tensor([block_size * 2 + 1, block_size, 3], dtype=torch.int32)
    table = torch.tensor([[3, 1, 5], [2, 0, 0], [4, 0, 0]], dtype=torch.int32)
    starts = torch.tensor([0, 1, 3, 4], dtype=torch.int32)
    rows = select_rows([(0, "a"), (1, "b"), (2, "c")], table, lengths, starts, block_size)
    assert rows is not None
    query = torch.randn(3, kv_heads, heads, head_size)
    if head_major:
        cache = torch.randn(6, kv_heads, block_size, 2 * head_size)
    else:
        cache = torch.randn(6, block_size, kv_heads, 2 * head_size).transpose(1, 2)
    got = paged_logsumexp(query, cache, rows, 0.2, softcap)
    keys = cache[rows.blocks][..., :head_size].transpose(2, 3)
    assert torch.allclose(got, block_logsumexp(query, keys, rows, 0.2, softcap), atol=1e-5)


def check_cosines(layout: str, rotated: int, halves: bool, size: int, width: int, own: int) -> None:
    """rotated: channels; 0: keys without positions."""
    layers, pool, heads = 2, 12, 2
    if layout == "by token":
        cache = torch.randn(layers, pool, heads, size, width)
    else:
        cache = torch.randn(layers, pool, size, heads, width).transpose(2, 3)
    rotation = Rotation(torch.randn(20 * size, rotated), halves) if rotated else None
    stack = CacheStack(("a", "b"), 0, cache, cache, rotation)
    positions = PoolPositions(stack)
    blocks, logical = (
        torch.tensor([[3, 7, 1, 9, 2], [4, 8, 6, 5, 0]]),
        torch.tensor([[2, -1, 5, -1, 9], [0, 1, -1, 3, -1]]),
    )
    # slots of merged blocks hold whatever their heads kept
    for block in (7, 9, 6):
        positions.table[:, block] = torch.randint(0, 12 * size, (layers, heads, size), dtype=torch.int32)
    candidates = MergeCandidates(stack, None, positions, blocks, logical, own, torch.zeros(2, dtype=torch.int64))
    wanted = highest_cosines(candidates.read(slice(0, layers)), True)
    got = kernel_cosines(
        cache, blocks, logical, positions.table, own, None if rotation is None else rotation.cos_sin, halves
    )
    assert torch.allclose(got, wanted, atol=1e-5), (got - wanted).abs().max()
    assert (wanted > -1).any()


torch.manual_seed(0)
for layout in ("by token", "by head"):
    check_cosines(layout, 64, True, 16, 64, 3)
    check_cosines(layout, 48, False, 16, 80, 2)
check_cosines("by token", 0, True, 32, 128, 3)
check_cosines("by token", 32, True, 12, 32, 4)
check_compaction(4, 1, 6, 9)
check_compaction(16, 2, 5, 600)
for softcap in (0.0, 4.0):
    for head_major in (True, False):
        check_masses(16, 64, softcap, head_major)
        check_masses(12, 80, softcap, head_major)
