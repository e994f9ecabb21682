"""Which tokens of a merge stay, by a keep rule: for each head group by itself, all of them at once."""

from collections.abc import Mapping
from functools import reduce

import numpy as np
import torch
from torch.nn.functional import max_pool1d

from .gen import policy_pb2 as pb
from .keep_rule import KeepRule, KeepStage, KeepTerm
from .token_figures import MergedTokens, drawn, figures_of

#: By statistic: float32 [groups, candidates], in the order of positions.
Figures = Mapping["pb.Statistic.ValueType", torch.Tensor]


def select_tokens(rule: KeepRule, tokens: MergedTokens, room: int) -> torch.Tensor:
    """The candidates that stay, in the order of their positions: int64 [groups, room]. room: at most the candidates.

    The seed is `tokens.seeds`, not that of the rule.
    """
    count = tokens.positions.shape[1]
    by_position = tokens.positions.argsort(-1)
    figures = {name: figures_of(name, tokens).gather(1, by_position) for name in rule.statistics}
    taken = torch.zeros(by_position.shape, dtype=torch.bool, device=by_position.device)
    left = room
    for number, stage in enumerate(rule.stages, 1):
        # the product in float32: .7 of 10 is 7, though the float32 that is nearest to .7 is below it
        share = int(np.float32(stage.share) * np.float32(room)) if number < len(rule.stages) else left
        wanted = min(left, share)
        if wanted == 0:
            continue
        values = _values(stage, figures)
        if stage.sampled:
            u = drawn(tokens.seeds + 1, tokens.positions.gather(1, by_position), tokens.head_groups)
            values = (values.clamp(min=0) + 1e-9).log() - (-(u + 2**-25).log()).log()
        # a stable sort from the newest on: of equal values the newest comes first
        order = _comparable(values).masked_fill_(taken, float("-inf")).flip(-1).sort(descending=True, stable=True)
        taken.scatter_(1, count - 1 - order.indices[:, :wanted], True)
        left -= wanted
    kept = taken.sort(descending=True, stable=True).indices[:, :room]
    return by_position.gather(1, kept)


def _comparable(values: torch.Tensor) -> torch.Tensor:
    """Float32 and finite. Rounded from float64, equal sums of ranks are equal in whatever order they were added."""
    lowest = torch.finfo(torch.float32).min
    return values.float().nan_to_num(nan=lowest, neginf=lowest)


def _values(stage: KeepStage, figures: Figures) -> torch.Tensor:
    """Float64 [groups, candidates], in the order of positions."""
    return reduce(torch.add, (_scaled_figures(term, figures[term.statistic]) * term.weight for term in stage.terms))


def _scaled_figures(term: KeepTerm, figures: torch.Tensor) -> torch.Tensor:
    """Float64. Both as `figures`."""
    count = figures.shape[-1]
    if term.pool > 1:
        # a wider window than this sees no more
        window = min(term.pool, 2 * count - 1)
        figures = max_pool1d(figures[None], window, stride=1, padding=window // 2)[0]
    exact = figures.double()
    match term.scale:
        case pb.SCALE_RANK:
            # stable: of equal figures the newest ranks higher
            order = figures.sort(stable=True).indices
            ranks = torch.arange(count, dtype=torch.float64, device=figures.device) / count
            return torch.empty_like(exact).scatter_(1, order, ranks.expand_as(exact))
        case pb.SCALE_SHARE:
            total = exact.sum(-1, keepdim=True)
            return exact / total.masked_fill(total == 0, float("inf"))
        case pb.SCALE_SOFTMAX:
            return exact.softmax(-1)
        case _:
            return exact
