"""Which blocks of a request a plan may take away."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class RejectReason(Enum):
    """Why an entry of a plan, or blocks of it, were refused."""

    UNKNOWN_REQUEST = "unknown_request"
    STALE_EPOCH = "stale_epoch"
    PROTECTED = "protected"
    OUT_OF_RANGE = "out_of_range"
    FUTURE_STEP = "future_step"
    NOT_RESIDENT = "not_resident"
    SHARED = "shared"
    DISABLED = "disabled"
    INVALID_MERGE = "invalid_merge"


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
class Choice:
    """What of a list may be evicted."""

    #: Ascending.
    evict: list[int] = field(default_factory=list)
    rejected: dict[RejectReason, list[int]] = field(default_factory=dict)


def evictable_range(
    prompt_tokens: int, computed_tokens: int, block_size: int, protection: Protection
) -> tuple[int, int]:
    """Logical blocks [first, end) that may be evicted from a request of this length.

    `computed_tokens` counts only what is in the cache for certain: tokens of steps in flight do not.
    """
    first = -(-max(prompt_tokens, protection.sink_tokens) // block_size)
    end = max(0, computed_tokens - protection.recent_tokens) // block_size
    return first, max(first, end)


def merge_objections(
    into: Sequence[int], from_: Sequence[int], row: Sequence[Block], mergeable: tuple[int, int]
) -> dict[RejectReason, list[int]]:
    """Why a merge cannot be carried out: the blocks in its way, by reason; empty: it can.

    `mergeable` is the evictable range.
    """
    named = [*into, *from_]
    if not into or not from_ or len(set(named)) < len(named):
        return {RejectReason.INVALID_MERGE: sorted(named)}
    rejected: dict[RejectReason, list[int]] = {}
    first, end = mergeable
    for index in sorted(named):
        if index >= len(row):
            reason = RejectReason.OUT_OF_RANGE
        elif not first <= index < end:
            reason = RejectReason.PROTECTED
        elif row[index].is_null:
            reason = RejectReason.NOT_RESIDENT
        elif row[index].ref_cnt > 1:
            # also by the request's own probe, which reads the blocks as they were when it was forked
            reason = RejectReason.SHARED
        else:
            continue
        rejected.setdefault(reason, []).append(index)
    return rejected


def choose(
    indices: Sequence[int],
    row: Sequence[Block],
    probe_row: Sequence[Block],
    evictable: tuple[int, int],
) -> Choice:
    """Sorts a plan's list into what may go and what may not, with the reason. Changes nothing.

    A block that only the request's own probe shares may go: it leaves the row now, and the pool when the probe ends.
    """
    choice = Choice()
    first, end = evictable
    for index in sorted(set(indices)):
        if index >= len(row):
            reason = RejectReason.OUT_OF_RANGE
        elif not first <= index < end:
            reason = RejectReason.PROTECTED
        elif row[index].is_null:
            reason = RejectReason.NOT_RESIDENT
        elif row[index].ref_cnt > (2 if index < len(probe_row) and probe_row[index] is row[index] else 1):
            reason = RejectReason.SHARED
        else:
            choice.evict.append(index)
            continue
        choice.rejected.setdefault(reason, []).append(index)
    return choice
