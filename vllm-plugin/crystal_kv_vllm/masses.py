"""How much of its attention a query spends on each block.

Mass of a block = exp(lse(block) - lse(all blocks)), where lse is the log-sum-exp of the scaled scores of the block's
tokens; for a head group it is the mean over the query heads that share its keys. On the wire a mass is one byte, a log
code (see the contract).
"""

from dataclasses import dataclass

import torch

#: The code of a mass too small to tell from nothing.
NOTHING = 31


@dataclass(frozen=True)
class RowSelection:
    """The rows of a batch that are measured in a step, flattened to their blocks."""

    #: Request of each measured row.
    request_ids: list[str]
    #: Resident blocks of each measured row.
    counts: list[int]
    #: Index of the row's last query token in the batch: int64 [rows].
    tokens: torch.Tensor
    #: Kernel block ids, row by row: int64 [blocks].
    blocks: torch.Tensor
    #: Measured row of each block: int64 [blocks].
    row_of: torch.Tensor
    #: Tokens in use of each block: int64 [blocks].
    filled: torch.Tensor


def select_rows(
    rows: list[tuple[int, str]],
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    block_size: int,
) -> RowSelection | None:
    """Flattens the given rows, (index in the batch, request id), of compacted tables and lengths. None: no rows."""
    if not rows:
        return None
    device = block_table.device
    index = torch.tensor([row for row, _ in rows], device=device)
    lengths = seq_lens[index].long()
    counts = torch.div(lengths + (block_size - 1), block_size, rounding_mode="floor")
    row_of = torch.repeat_interleave(torch.arange(len(rows), device=device), counts)
    place = torch.arange(len(row_of), device=device) - (counts.cumsum(0) - counts)[row_of]
    return RowSelection(
        request_ids=[request_id for _, request_id in rows],
        counts=counts.tolist(),
        tokens=query_start_loc[index + 1].long() - 1,
        blocks=block_table[index[row_of], place].long(),
        row_of=row_of,
        filled=(lengths[row_of] - place * block_size).clamp(max=block_size),
    )


def block_logsumexp(
    query: torch.Tensor, keys: torch.Tensor, rows: RowSelection, scale: float, softcap: float = 0.0
) -> torch.Tensor:
    """Log-sum-exp of each block's scores: float32 [..., blocks, kv heads, query heads of a group].

    query: [..., rows, kv heads, query heads of a group, head size], the last query token of each measured row.
    keys: [..., blocks, kv heads, head size, block size], in the order of `rows.blocks`.
    """
    scores = torch.matmul(query.index_select(-4, rows.row_of).float(), keys.float()) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    unused = torch.arange(keys.shape[-1], device=keys.device)[None] >= rows.filled[:, None]
    return scores.masked_fill_(unused[:, None, None], float("-inf")).logsumexp(-1)


def block_masses(lse: torch.Tensor, rows: RowSelection, sinks: torch.Tensor | None = None) -> torch.Tensor:
    """Masses of head groups: float32 [blocks, kv heads].

    lse: [blocks, kv heads, query heads of a group]; sinks: learned scores that take attention without a token,
    [kv heads, query heads of a group].
    """
    shape = (len(rows.counts), *lse.shape[1:])
    index = rows.row_of[:, None, None].expand_as(lse)
    highest = torch.full(shape, float("-inf"), device=lse.device).scatter_reduce(0, index, lse, "amax")
    weights = (lse - highest[rows.row_of]).exp()
    total = torch.zeros(shape, device=lse.device).index_add(0, rows.row_of, weights)
    if sinks is not None:
        total = total + (sinks.float()[None] - highest).exp()
    return (weights / total[rows.row_of]).mean(2)


def log_codes(masses: torch.Tensor) -> torch.Tensor:
    """min(31, floor(-2 * log2(mass))) as uint8; 0 for masses that rounding put above 1."""
    return (-2 * torch.log2(masses)).floor().clamp(0, NOTHING).to(torch.uint8)
