"""By which rule a merge keeps tokens: read from a plan once, and checked. What the words mean is in the contract."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from .gen import policy_pb2 as pb

#: What is kept for each slot of the cache, where the policy service asks for it.
KEPT_STATISTICS = frozenset(value for value in pb.Statistic.values() if 0 < value < pb.STATISTIC_DISTINCT_KEYS)
#: What is computed when blocks are merged.
COMPUTED_STATISTICS = frozenset(value for value in pb.Statistic.values() if value >= pb.STATISTIC_DISTINCT_KEYS)


@dataclass(frozen=True)
class KeepTerm:
    statistic: "pb.Statistic.ValueType"
    weight: float
    scale: "pb.Scale.ValueType"
    #: An odd number of tokens, or 0.
    pool: int


@dataclass(frozen=True)
class KeepStage:
    share: float
    terms: tuple[KeepTerm, ...]
    sampled: bool


@dataclass(frozen=True)
class KeepRule:
    stages: tuple[KeepStage, ...]
    seed: int

    @property
    def statistics(self) -> frozenset["pb.Statistic.ValueType"]:
        return frozenset(term.statistic for stage in self.stages for term in stage.terms)


#: The rule of merges that name none.
MOST_DISTINCT = KeepRule(
    (KeepStage(1.0, (KeepTerm(pb.STATISTIC_DISTINCT_KEYS, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),), seed=0
)


def read_keep_rule(merge: pb.Merge, kept: Collection["pb.Statistic.ValueType"]) -> KeepRule | None:
    """The rule of a merge; None: it cannot be followed. `kept`: the statistics that are kept at the moment."""
    if not merge.HasField("rule"):
        return MOST_DISTINCT
    stages = merge.rule.stages
    shares = [stage.share for stage in stages[:-1]]
    terms = [term for stage in stages for term in stage.terms]
    # a NaN is in no range
    good = len(stages) > 0 and all(stage.terms for stage in stages) and all(0 < share <= 1 for share in shares)
    if not good or not all(_is_known(term, kept) for term in terms):
        return None
    return KeepRule(
        tuple(
            KeepStage(
                stage.share,
                tuple(KeepTerm(term.statistic, term.weight, term.scale, term.pool) for term in stage.terms),
                stage.sampled,
            )
            for stage in stages
        ),
        merge.rule.seed,
    )


def _is_known(term: pb.KeepTerm, kept: Collection["pb.Statistic.ValueType"]) -> bool:
    return (
        (term.statistic in COMPUTED_STATISTICS or term.statistic in kept)
        and math.isfinite(term.weight)
        and term.scale in pb.Scale.values()
        and (term.pool == 0 or term.pool % 2 == 1)
    )
