"""The queries of an answer probe, which can be asked again of tokens that were stored later."""

from dataclasses import dataclass, field

import torch


@dataclass(eq=False)
class AnswerQueries:
    """As if the answer began later: queries and own keys turn by the same angle, so what they score stays as it is."""

    #: Position of the probe's first own token.
    start: int
    #: Tokens of the request below this were asked for.
    asked_up_to: int
    #: By stack and layer: [queries, kv heads, query heads of a group, head size], piece by piece.
    _queries: dict[tuple[int, int], list[torch.Tensor]] = field(default_factory=dict)
    #: Likewise [kv heads, queries, query heads of a group]: `log_sum` of a query's scores of the probe's own keys.
    _own: dict[tuple[int, int], list[torch.Tensor]] = field(default_factory=dict)

    def add(self, stack: int, layers: slice, queries: torch.Tensor, own: torch.Tensor) -> None:
        """queries: [layers, queries, kv heads, heads of a group, head size]; own: [head groups, queries, heads]."""
        scores = own.view(len(queries), -1, *own.shape[1:])
        for number, (some, score) in enumerate(zip(queries, scores, strict=True), layers.start):
            self._queries.setdefault((stack, number), []).append(some.clone())
            self._own.setdefault((stack, number), []).append(score)

    def __bool__(self) -> bool:
        return bool(self._queries)

    def of(self, stack: int, layers: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Both of some layers, as `add` got them."""
        queries = [torch.cat(self._queries[stack, layer]) for layer in layers]
        own = [torch.cat(self._own[stack, layer], 1) for layer in layers]
        return torch.stack(queries), torch.cat(own)
