"""Which statistics of tokens are kept beside the cache, and which queries count in them. Definitions: the contract."""

import math
from dataclasses import dataclass

from .gen import policy_pb2 as pb
from .keep_rule import KEPT_STATISTICS


@dataclass(frozen=True)
class KeptStatistics:
    """What the policy service wants to be kept."""

    #: Ascending; at least one.
    statistics: tuple["pb.Statistic.ValueType", ...]
    #: In queries of a request; infinite: nothing fades. The second is for PEAK and ANSWER.
    attention_half_life: float
    peak_half_life: float

    @classmethod
    def of(cls, configure: pb.Configure) -> "KeptStatistics | None":
        """None: nothing is to be kept. What this engine did not announce is left out."""
        kept = configure.statistics
        known = sorted(KEPT_STATISTICS.intersection(kept.statistics))
        if not known:
            return None
        return cls(tuple(known), _half_life(kept.attention_half_life_tokens), _half_life(kept.peak_half_life_tokens))


@dataclass(slots=True)
class CountedQueries:
    """The queries of one request in one step, and the blocks that they read. Blocks are the scheduler's.

    One is made for each request of each step; a frozen one would take three times as long.
    """

    #: Position of the request's first token in the step, and how many tokens there are.
    start: int
    count: int
    #: Queries count from this position on.
    counted_from: int
    #: The logical blocks whose tokens they count for: from the first up to, not including, the second.
    outputs: tuple[int, int]
    #: Block ids of the request's row from logical block `first_block` on; 0: everything before is forgotten.
    first_block: int
    blocks: tuple[int, ...]
    #: Of an answer probe: the request that it was forked from.
    parent: str | None = None


def _half_life(tokens: float) -> float:
    return tokens if tokens > 0 else math.inf
