"""What is computed of tokens when blocks are merged: the statistics of the contract from DISTINCT_KEYS on.

Of all head groups of some layers at once; a head group is a KV head of a layer. In what follows `groups` is their
number, `candidates` are the tokens that may go, and `tokens` those and the output's others.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch.nn.functional import normalize

from .gen import policy_pb2 as pb
from .rotation import Rotation

#: Cosines are compared in steps of this size: what differs by rounding only is equal.
RESOLUTION = 1e-3
#: Cosines that are held at once: 16 MB of them on a CPU, where they have to stay near the core; else 256 MB.
MAX_COSINES_CPU, MAX_COSINES = 1 << 22, 1 << 26

#: Those that compare each candidate with other tokens.
COMPARED_STATISTICS = frozenset({pb.STATISTIC_DISTINCT_KEYS, pb.STATISTIC_DISTINCT_VALUES})
#: All that are computed of keys or values.
VECTOR_STATISTICS = COMPARED_STATISTICS | {
    pb.STATISTIC_KEY_SIMILARITY,
    pb.STATISTIC_KEY_DIFFERENCE,
    pb.STATISTIC_VALUE_RANGE,
}

_BITS = (1 << 32) - 1

#: Vectors as stored, [groups, tokens, head size], and their positions, int32 [groups, tokens].
Tokens = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class MergedTokens:
    """The candidates of a merge, and the output's other tokens."""

    #: int64 [groups]: layer * KV heads + KV head.
    head_groups: torch.Tensor
    #: Of the candidates: int32 [groups, candidates].
    positions: torch.Tensor
    #: Keys (else values) of the candidates as stored, a copy: [groups, candidates, head size].
    vectors: Callable[[bool], torch.Tensor]
    #: Of the keys; None: there is none, or none is known.
    rotation: Rotation | None
    #: What is kept of the candidates: float32 [groups, candidates].
    kept: Mapping["pb.Statistic.ValueType", torch.Tensor]
    #: Keys (else values) of the tokens that are no candidates, part by part, so that there may be any number of them.
    others: Callable[[bool], Iterable[Tokens]]
    #: Seeds of the rule: int64 [groups].
    seeds: torch.Tensor
    #: Takes the place of `highest_cosines`, as the same of keys (else values); None: nothing does.
    kernel: Callable[[bool], torch.Tensor] | None = None

    def plain(self, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys before their rotation, float32."""
        return keys.float() if self.rotation is None else self.rotation.undo(keys.float(), positions)


def figures_of(statistic: "pb.Statistic.ValueType", tokens: MergedTokens) -> torch.Tensor:
    """Float32 [groups, candidates]. A kept statistic must be among `tokens.kept`."""
    match statistic:
        case pb.STATISTIC_DISTINCT_KEYS:
            return distinctness(tokens, of_keys=True)
        case pb.STATISTIC_DISTINCT_VALUES:
            return distinctness(tokens, of_keys=False)
        case pb.STATISTIC_KEY_SIMILARITY:
            unit = normalize(tokens.vectors(True).float(), dim=-1)
            # that of a key with itself is 1
            return ((unit * unit.sum(1, keepdim=True)).sum(-1) - 1) / (unit.shape[1] - 1)
        case pb.STATISTIC_KEY_DIFFERENCE:
            unit = normalize(tokens.plain(tokens.vectors(True), tokens.positions), dim=-1)
            return -(unit * normalize(unit.mean(1, keepdim=True), dim=-1)).sum(-1)
        case pb.STATISTIC_VALUE_RANGE:
            values = tokens.vectors(False).float()
            return values.amax(-1) - values.amin(-1)
        case pb.STATISTIC_POSITION:
            return tokens.positions.float()
        case pb.STATISTIC_RANDOM:
            return drawn(tokens.seeds, tokens.positions, tokens.head_groups).float()
        case _:
            return tokens.kept[statistic]


def distinctness(tokens: MergedTokens, *, of_keys: bool) -> torch.Tensor:
    """Minus the highest cosine of a candidate with a token at a later position; 1 where there is none.

    Of keys before their rotation, or of values. Returns float32 [groups, candidates]. After R-KV (arXiv 2505.24133): of
    several keys that answer the same queries the newest is not repeated.
    """
    highest = highest_cosines(tokens, of_keys) if tokens.kernel is None else tokens.kernel(of_keys)
    return (highest / RESOLUTION).round() * -RESOLUTION


def highest_cosines(tokens: MergedTokens, of_keys: bool) -> torch.Tensor:
    """Of each candidate with a token at a later position; -1 where there is none. Float32 [groups, candidates]."""

    def unit(vectors: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return normalize(tokens.plain(vectors, positions) if of_keys else vectors.float(), dim=-1)

    own = tokens.vectors(of_keys)
    own_unit = unit(own, tokens.positions)
    highest = torch.full(tokens.positions.shape, -1.0, device=own.device)
    parts = chain([(own, tokens.positions)], tokens.others(of_keys))
    for vectors, positions in parts:
        _raise(highest, own_unit, tokens.positions, own_unit if vectors is own else unit(vectors, positions), positions)
    return highest


def _raise(
    highest: torch.Tensor,
    own: torch.Tensor,
    own_positions: torch.Tensor,
    others: torch.Tensor,
    positions: torch.Tensor,
) -> None:
    """Raises `highest` to the cosines with some tokens that are later; as many at a time as there is room for."""
    groups, candidates = highest.shape
    most = MAX_COSINES_CPU if own.device.type == "cpu" else MAX_COSINES
    rows = max(1, min(candidates, most // others.shape[1]))
    some_groups = max(1, most // (rows * others.shape[1]))
    for group in range(0, groups, some_groups):
        of = slice(group, group + some_groups)
        for start in range(0, candidates, rows):
            some = slice(start, start + rows)
            cosines = torch.bmm(own[of, some], others[of].transpose(1, 2))
            cosines.masked_fill_(positions[of, None] <= own_positions[of, some, None], -1.0)
            highest[of, some] = torch.maximum(highest[of, some], cosines.amax(-1))


def drawn(seeds: torch.Tensor, positions: torch.Tensor, head_groups: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1), float64 [groups, candidates], as KeepRule says.

    seeds, head_groups: int64 [groups]; positions: [groups, candidates].
    """
    h = positions.long() * 0x9E3779B1 ^ (head_groups * 0x85EBCA77 ^ seeds)[:, None]
    h = h & _BITS
    # fmix32, the finaliser of MurmurHash3
    h = _product(h ^ h >> 16, 0x85EBCA6B)
    h = _product(h ^ h >> 13, 0xC2B2AE35)
    return ((h ^ h >> 16) >> 8).double() / (1 << 24)


def _product(h: torch.Tensor, factor: int) -> torch.Tensor:
    """Modulo 2^32, in two halves: the whole product has no place in 64 bits."""
    return (((h >> 16) * factor & 0xFFFF) << 16) + (h & 0xFFFF) * factor & _BITS
