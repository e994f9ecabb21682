"""What is computed of tokens when blocks are merged: the statistics of the contract from DISTINCT_KEYS on.

Of all head groups of some layers at once; a head group is a KV head of a layer. In what follows `groups` is their
number, `candidates` are the tokens that may go, and `tokens` those and the output's others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from .gen import policy_pb2 as pb
from .rotation import Rotation

#: Cosines are compared in steps of this size: what differs by rounding only is equal.
RESOLUTION = 1e-3
#: Cosines that are held at once: 16 MB of them on a CPU, where they have to stay near the core; else 256 MB.
MAX_COSINES_CPU, MAX_COSINES = 1 << 22, 1 << 26
#: Candidates that are compared at once: those that come later need not be compared with what is before the first.
MAX_ROWS = 512

_BITS = (1 << 32) - 1


@dataclass(frozen=True)
class MergedTokens:
    """The tokens of a merge: the candidates come first. Where a rule does not ask for the others, they may be missing.

    `positions` has all of them.
    """

    candidates: int
    #: int64 [groups]: layer * KV heads + KV head.
    head_groups: torch.Tensor
    #: int32 [groups, tokens]
    positions: torch.Tensor
    #: [groups, tokens, head size]; keys as stored.
    keys: torch.Tensor
    values: torch.Tensor
    #: Of the keys; None: there is none, or none is known.
    rotation: Rotation | None
    #: What is kept of the candidates: float32 [groups, candidates].
    kept: Mapping["pb.Statistic.ValueType", torch.Tensor]

    def plain_keys(self, count: int) -> torch.Tensor:
        """Keys of the first tokens before their rotation: float32 [groups, count, head size]."""
        keys = self.keys[:, :count].float()
        return keys if self.rotation is None else self.rotation.undo(keys, self.positions[:, :count])


def figures_of(statistic: "pb.Statistic.ValueType", tokens: MergedTokens, seed: int) -> torch.Tensor:
    """Float32 [groups, candidates]. A kept statistic must be among `tokens.kept`."""
    count = tokens.candidates
    match statistic:
        case pb.STATISTIC_DISTINCT_KEYS:
            return distinctness(tokens.plain_keys(tokens.positions.shape[1]), tokens.positions, count)
        case pb.STATISTIC_DISTINCT_VALUES:
            return distinctness(tokens.values, tokens.positions, count)
        case pb.STATISTIC_KEY_SIMILARITY:
            unit = normalize(tokens.keys[:, :count].float(), dim=-1)
            # that of a key with itself is 1
            return ((unit * unit.sum(1, keepdim=True)).sum(-1) - 1) / (count - 1)
        case pb.STATISTIC_KEY_DIFFERENCE:
            unit = normalize(tokens.plain_keys(count), dim=-1)
            return -(unit * normalize(unit.mean(1, keepdim=True), dim=-1)).sum(-1)
        case pb.STATISTIC_VALUE_RANGE:
            values = tokens.values[:, :count].float()
            return values.amax(-1) - values.amin(-1)
        case pb.STATISTIC_POSITION:
            return tokens.positions[:, :count].float()
        case pb.STATISTIC_RANDOM:
            return drawn(seed, tokens.positions[:, :count], tokens.head_groups).float()
        case _:
            return tokens.kept[statistic]


def distinctness(vectors: torch.Tensor, positions: torch.Tensor, candidates: int) -> torch.Tensor:
    """Minus the highest cosine of a candidate with a token at a later position; 1 where there is none.

    vectors: [groups, tokens, size]; positions: [groups, tokens]. Returns float32 [groups, candidates]. After R-KV
    (arXiv 2505.24133): of several keys that answer the same queries the newest is not repeated.
    """
    groups, count, _ = vectors.shape
    unit = normalize(vectors.float(), dim=-1)
    own, own_positions, own_unit = _by_position(positions[:, :candidates], unit)
    _, all_positions, all_unit = _by_position(positions, unit)
    highest = torch.empty(groups, candidates, device=vectors.device)
    most = MAX_COSINES_CPU if vectors.device.type == "cpu" else MAX_COSINES
    rows = max(1, min(candidates, MAX_ROWS, most // count))
    some_groups = max(1, most // (rows * count))
    for group in range(0, groups, some_groups):
        of = slice(group, group + some_groups)
        for start in range(0, candidates, rows):
            some = slice(start, min(start + rows, candidates))
            # as many tokens as candidates, at least, are before the first of these
            earlier = all_positions[of, None, start:] <= own_positions[of, some, None]
            cosines = torch.bmm(own_unit[of, some], all_unit[of, start:].transpose(1, 2))
            highest[of, some] = cosines.masked_fill_(earlier, -1.0).amax(-1)
    return torch.empty_like(highest).scatter_(1, own, (highest / RESOLUTION).round() * -RESOLUTION)


def _by_position(positions: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The order of the tokens by position, and positions and vectors in that order."""
    order = positions.argsort(-1)
    return order, positions.gather(1, order), vectors.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[2]))


def drawn(seed: int, positions: torch.Tensor, head_groups: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1), float64 [groups, candidates], as KeepRule says. positions: [groups, candidates]."""
    h = positions.long() * 0x9E3779B1 ^ (head_groups * 0x85EBCA77)[:, None] ^ seed
    h = h & _BITS
    # fmix32, the finaliser of MurmurHash3
    h = _product(h ^ h >> 16, 0x85EBCA6B)
    h = _product(h ^ h >> 13, 0xC2B2AE35)
    return ((h ^ h >> 16) >> 8).double() / (1 << 24)


def _product(h: torch.Tensor, factor: int) -> torch.Tensor:
    """Modulo 2^32, in two halves: the whole product has no place in 64 bits."""
    return (((h >> 16) * factor & 0xFFFF) << 16) + (h & 0xFFFF) * factor & _BITS
