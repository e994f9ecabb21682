"""Which blocks of a request a plan may take away."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .gen import policy_pb2 as pb

#: Blocks that were refused, by reason.
Rejected = dict["pb.Reject.ValueType", list[int]]


@dataclass(frozen=True)
class Protection:
    """What no plan may touch, beside the prompt and the unfilled tail. In tokens."""

    #: The first tokens of a request (attention sinks, StreamingLLM 2309.17453).
    sink_tokens: int
    #: The newest tokens: the reasoning step that is being written.
    recent_tokens: int


class Block(Protocol):
    """What a block says of itself."""

    is_null: bool
    ref_cnt: int


@dataclass
class EvictionCheck:
    """Which blocks of a list may be evicted."""

    #: Ascending.
    allowed: list[int] = field(default_factory=list)
    rejected: Rejected = field(default_factory=dict)


def evictable_range(
    prompt_tokens: int, computed_tokens: int, block_size: int, protection: Protection
) -> tuple[int, int]:
    """Logical blocks [first, end) that may be evicted from a request of this length.

    `computed_tokens` counts only what is in the cache for certain: tokens of steps in flight do not.
    """
    first = -(-max(prompt_tokens, protection.sink_tokens) // block_size)
    end = max(0, computed_tokens - protection.recent_tokens) // block_size
    return first, max(first, end)


def check_merge(
    into: Sequence[int], from_: Sequence[int], row: Sequence[Block], mergeable: tuple[int, int]
) -> Rejected:
    """Why a merge cannot be carried out: the blocks in its way, by reason; empty: it can.

    `mergeable` is the evictable range. A block that the own probe shares is in the way too: the probe reads it as
    it was when it was forked.
    """
    named = [*into, *from_]
    if not into or not from_ or len(set(named)) < len(named):
        return {pb.REJECT_INVALID_MERGE: sorted(named)}
    rejected: Rejected = {}
    for index in sorted(named):
        reason = _reject_reason(index, row, mergeable, references=1)
        if reason is not None:
            rejected.setdefault(reason, []).append(index)
    return rejected


def check_evictions(
    indices: Sequence[int],
    row: Sequence[Block],
    probe_row: Sequence[Block],
    evictable: tuple[int, int],
) -> EvictionCheck:
    """Sorts a plan's list into what may go and what may not, with the reason. Changes nothing.

    A block that only the request's own probe shares may go: it leaves the row now, and the pool when the probe ends.
    """
    check = EvictionCheck()
    for index in sorted(set(indices)):
        probed = index < min(len(row), len(probe_row)) and probe_row[index] is row[index]
        reason = _reject_reason(index, row, evictable, references=2 if probed else 1)
        if reason is None:
            check.allowed.append(index)
        else:
            check.rejected.setdefault(reason, []).append(index)
    return check


def _reject_reason(
    index: int, row: Sequence[Block], evictable: tuple[int, int], references: int
) -> "pb.Reject.ValueType | None":
    """Why a block may not leave the row; None: it may. `references`: how many may use it."""
    if index >= len(row):
        return pb.REJECT_OUT_OF_RANGE
    if not evictable[0] <= index < evictable[1]:
        return pb.REJECT_PROTECTED
    if row[index].is_null:
        return pb.REJECT_NOT_RESIDENT
    return pb.REJECT_SHARED if row[index].ref_cnt > references else None
