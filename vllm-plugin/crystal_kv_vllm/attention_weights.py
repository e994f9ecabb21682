"""What a request's queries give to the tokens of its cache, for many queries and layers at once."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Weights:
    """Of each token, over the query heads that share its keys: float32 [head groups, queries, tokens]."""

    mean: torch.Tensor
    most: torch.Tensor


@dataclass(frozen=True)
class Scoring:
    """How a layer makes weights of scores."""

    scale: float
    #: Scores are bounded by softcap * tanh(score / softcap); 0: they are not.
    softcap: float
    #: Learned scores that take attention without a token, [head groups, query heads of a group]; None: there are none.
    sinks: torch.Tensor | None

    def of(self, groups: slice) -> "Scoring":
        """Of some of the head groups."""
        return self if self.sinks is None else Scoring(self.scale, self.softcap, self.sinks[groups])


def max_scores(device: torch.device) -> int:
    """Scores that are held at once, of as many layers as that allows: 16 MB of them on a CPU, else 256 MB."""
    return 1 << 22 if device.type == "cpu" else 1 << 26


def attention_weights(
    queries: torch.Tensor,
    keys: torch.Tensor,
    visible: torch.Tensor,
    counted: slice,
    scoring: Scoring,
    beside: torch.Tensor | None = None,
) -> Weights:
    """The weights of the tokens in `counted`, among all that a query sees.

    queries: [head groups, queries, query heads of a group, head size]; keys: [head groups, tokens, head size];
    visible: bool [queries, tokens]; beside: what it sees beside these keys, as `log_sum` gives it.
    """
    scores = _scores(queries, keys, visible, scoring)
    highest = scores.amax(-1, keepdim=True)
    if beside is not None:
        highest = torch.maximum(highest, beside[..., None])
    if scoring.sinks is not None:
        sinks = scoring.sinks.float()[:, None, :, None]
        highest = torch.maximum(highest, sinks)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    if beside is not None:
        total = total + (beside[..., None] - highest).exp()
    if scoring.sinks is not None:
        total = total + (sinks - highest).exp()
    weights = weights[..., counted] / total
    return Weights(weights.mean(2), weights.amax(2))


def log_sum(queries: torch.Tensor, keys: torch.Tensor, visible: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    """Logarithm of the sum of the exponentials of the scores: [head groups, queries, query heads of a group]."""
    return _scores(queries, keys, visible, scoring).logsumexp(-1)


def _scores(queries: torch.Tensor, keys: torch.Tensor, visible: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    groups, count, heads, _ = queries.shape
    scores = torch.bmm(queries.flatten(1, 2).float(), keys.float().transpose(1, 2)).mul_(scoring.scale)
    if scoring.softcap:
        scores.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
    return scores.view(groups, count, heads, -1).masked_fill_(~visible[None, :, None], float("-inf"))
