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

    `mergeable` is the evictable range. A block that the own probe shares is in the way too: the probe reads it as
    it was when it was forked.
    """
    named = [*into, *from_]
    if not into or not from_ or len(set(named)) < len(named):
        return {RejectReason.INVALID_MERGE: sorted(named)}
    rejected: dict[RejectReason, list[int]] = {}
    for index in sorted(named):
        reason = _objection(index, row, mergeable, references=1)
        if reason is not None:
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
    for index in sorted(set(indices)):
        probed = index < min(len(row), len(probe_row)) and probe_row[index] is row[index]
        reason = _objection(index, row, evictable, references=2 if probed else 1)
        if reason is None:
            choice.evict.append(index)
        else:
            choice.rejected.setdefault(reason, []).append(index)
    return choice


def _objection(index: int, row: Sequence[Block], evictable: tuple[int, int], references: int) -> RejectReason | None:
    """Why a block may not leave the row; None: it may. `references`: how many may use it."""
    if index >= len(row):
        return RejectReason.OUT_OF_RANGE
    if not evictable[0] <= index < evictable[1]:
        return RejectReason.PROTECTED
    if row[index].is_null:
        return RejectReason.NOT_RESIDENT
    return RejectReason.SHARED if row[index].ref_cnt > references else None
