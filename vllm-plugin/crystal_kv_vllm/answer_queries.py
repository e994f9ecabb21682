"""The queries of an answer probe, which can be asked again of tokens that were stored later."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class _Kept:
    #: [layers of the stack, queries, kv heads, query heads of a group, head size]; more than there are so far.
    queries: torch.Tensor
    #: [layers, kv heads, queries, query heads of a group]: `log_sum` of a query's scores of the probe's own keys.
    own: torch.Tensor


@dataclass(eq=False)
class AnswerQueries:
    """As if the answer began later: queries and own keys turn by the same angle, so what they score stays as it is.

    Of the keys nothing is kept but the sums of their scores.
    """

    #: Position of the probe's first own token.
    start: int
    #: Tokens of the request below this were asked for.
    asked_up_to: int
    #: Queries so far.
    count: int = 0
    _stacks: dict[int, _Kept] = field(default_factory=dict)

    def take(self, count: int) -> int:
        """Room for so many more queries. Returns the place of the first."""
        self.count += count
        return self.count - count

    def put(self, stack: int, depth: int, layers: slice, place: int, queries: torch.Tensor, own: torch.Tensor) -> None:
        """Of some layers of a stack, which has `depth`; place: as from `take`.

        queries: [layers, queries, kv heads, heads of a group, head size]; own: [head groups, queries, heads].
        """
        some = slice(place, place + queries.shape[1])
        kept = self._stacks.get(stack)
        if kept is None or kept.queries.shape[1] < some.stop:
            kept = self._stacks[stack] = self._wider(kept, depth, queries)
        kept.queries[layers, some] = queries
        kept.own[layers, :, some] = own.view(len(queries), -1, *own.shape[1:])

    def _wider(self, kept: _Kept | None, depth: int, queries: torch.Tensor) -> _Kept:
        _, _, heads, group, size = queries.shape
        wide = _Kept(
            queries.new_zeros(depth, self.count, heads, group, size),
            torch.zeros(depth, heads, self.count, group, device=queries.device),
        )
        if kept is not None:
            wide.queries[:, : kept.queries.shape[1]] = kept.queries
            wide.own[:, :, : kept.own.shape[2]] = kept.own
        return wide

    def __bool__(self) -> bool:
        return bool(self._stacks)

    def of(self, stack: int, layers: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Both of some layers, as `put` got them."""
        kept = self._stacks[stack]
        return kept.queries[layers, : self.count], kept.own[layers, :, : self.count].flatten(0, 1)

    def shape(self, stack: int) -> torch.Size:
        return self._stacks[stack].queries.shape
