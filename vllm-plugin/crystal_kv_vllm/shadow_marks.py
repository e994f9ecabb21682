"""What requests in shadow mode would have lost: in each head group, which tokens, and what queries give to them.

A token is known by its slot in the request: logical block of the attention kernel * block size + place in the block.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from .attention_weights import attention_weights, max_scores
from .cache_stack import CacheStack, read_blocks
from .head_groups import HeadGroup
from .keep_rule import KeepRule
from .masses import RowSelection
from .merge_candidates import kernel_blocks
from .merged_positions import MergedPositions
from .merger import Merger
from .slot_statistics import SlotStatistics
from .token_selection import select_tokens
from .uploads import upload
from .virtual_candidates import VirtualCandidates
from .worker_io import MergeCommand, ShadowCommand


@dataclass
class _Marked:
    """Of one request. By stack: bool [head groups, slots], as many slots as were marked so far, or more."""

    marks: list[torch.Tensor]
    #: Those that a later query read.
    regretted: list[torch.Tensor]
    holes: frozenset[int] = frozenset()
    read_share: float = 1.0
    #: Tokens in a block of the scheduler.
    block_size: int = 0


@dataclass
class _Reads:
    """Of one request: float64 and int64 [head groups of the model]."""

    missed: torch.Tensor
    regretted: torch.Tensor


@dataclass
class ShadowMarks:
    stacks: Sequence[CacheStack]
    #: It knows where tokens are that were really merged before.
    merger: Merger
    _marked: dict[str, _Marked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        #: Slots of the tokens that each block would hold.
        self._places = [
            MergedPositions(len(stack.layers), stack.kv_heads, stack.block_size, stack.keys.device)
            for stack in self.stacks
        ]

    def forget(self, request_ids: Iterable[str]) -> None:
        """What is marked of these requests means nothing any more."""
        names = list(request_ids)
        for places in self._places:
            places.forget(names)
        for name in names:
            self._marked.pop(name, None)

    def marked(self, request_id: str, stack: int) -> torch.Tensor:
        """Bool [head groups of the stack, slots]."""
        return self._marked[request_id].marks[stack]

    def mark(self, request_id: str, command: ShadowCommand, statistics: Sequence[SlotStatistics]) -> None:
        """statistics: of the request's tokens, stack by stack; empty: none are kept."""
        if command.begin:
            self.forget([request_id])
        marked = self._marked.get(request_id)
        if marked is None:
            none = [self._no_marks(stack) for stack in self.stacks]
            marked = self._marked[request_id] = _Marked(none, list(none))
        marked.holes = frozenset(command.holes)
        marked.read_share = command.read_share
        marked.block_size = command.block_size
        for number, stack in enumerate(self.stacks):
            split = command.block_size // stack.block_size
            slots = max((entry.index + 1 for entry in command.row), default=0) * command.block_size
            for kind in (marked.marks, marked.regretted):
                kind[number] = _widened(kind[number], slots)
            places = self._places[number]
            evicted = [index * split + part for index in command.evict for part in range(split)]
            if evicted:
                marked.marks[number].scatter_(1, places.of(request_id, evicted).long(), True)
            for merge in command.merges:
                slots_of = statistics[number] if statistics else None
                dropped = self._merge(request_id, number, command, merge, slots_of)
                marked.marks[number].scatter_(1, dropped, True)

    def _no_marks(self, stack: CacheStack) -> torch.Tensor:
        return torch.zeros(len(stack.layers) * stack.kv_heads, 0, dtype=torch.bool, device=stack.keys.device)

    def _merge(
        self,
        request_id: str,
        number: int,
        command: ShadowCommand,
        merge: MergeCommand,
        statistics: SlotStatistics | None,
    ) -> torch.Tensor:
        """Takes note of what the blocks would hold. Returns the slots that would be let go: [head groups, tokens]."""
        stack, places = self.stacks[number], self._places[number]
        size, split = stack.block_size, command.block_size // stack.block_size
        into, given, beside = (
            [entry.index for entry in kernel_blocks(it, split)] for it in (merge.into, merge.from_, merge.beside)
        )
        slots = places.of(request_id, [*into, *given, *beside]).long()
        row = kernel_blocks(command.row, split)
        device = slots.device
        order = torch.zeros(row[-1].index + 1, dtype=torch.int64, device=device)
        order[upload([entry.index for entry in row], device)] = torch.arange(len(row), device=device)
        count, room = (len(into) + len(given)) * size, len(into) * size
        candidates = VirtualCandidates(
            stack,
            statistics,
            upload([entry.block for entry in row], device),
            self.merger.positions(request_id, number, row),
            order[slots // size] * size + slots % size,
            count,
            merge.rule.seed,
        )
        chosen = _choose(candidates, merge.rule, room)
        places.merge(request_id, into, given, slots.gather(1, chosen).int())
        goes = torch.ones(len(slots), count, dtype=torch.bool, device=device).scatter_(1, chosen, False)
        # sorted, since picking by a mask would wait for the device
        return slots.gather(1, goes.sort(descending=True, stable=True).indices[:, : count - room])

    def reads(
        self, rows: RowSelection, queries: Mapping[str, torch.Tensor], head_groups: Sequence[HeadGroup]
    ) -> tuple[list[str], torch.Tensor | None]:
        """What measured queries give to marked tokens, by request: float64 [requests, 2], as `MarkedReads`.

        queries: by layer, [rows, kv heads, query heads of a group, head size]; head_groups: those that count.
        """
        names: list[str] = []
        figures: list[torch.Tensor] = []
        start = 0
        for row, (name, count) in enumerate(zip(rows.request_ids, rows.counts, strict=True)):
            columns = slice(start, start + count)
            start += count
            if name not in self._marked:
                continue
            reads = self._reads(
                self._marked[name],
                rows.blocks[columns],
                rows.filled[columns],
                {layer: query[row] for layer, query in queries.items()},
            )
            wanted = torch.tensor([self._number(group) for group in head_groups], device=reads.missed.device)
            names.append(name)
            figures.append(torch.stack([reads.missed[wanted].mean(), reads.regretted[wanted].sum().double()]))
        return names, torch.stack(figures) if figures else None

    def _number(self, head_group: HeadGroup) -> int:
        """Of a head group, among all of the model."""
        layer, head = head_group
        (stack,) = [stack for stack in self.stacks if layer in stack.layers]
        return (stack.first + stack.layers.index(layer)) * stack.kv_heads + head

    def _reads(
        self, marked: _Marked, blocks: torch.Tensor, filled: torch.Tensor, queries: Mapping[str, torch.Tensor]
    ) -> _Reads:
        """blocks: kernel blocks that are resident, in logical order; filled: tokens in each."""
        total = sum(len(stack.layers) * stack.kv_heads for stack in self.stacks)
        reads = _Reads(
            torch.zeros(total, dtype=torch.float64, device=blocks.device),
            torch.zeros(total, dtype=torch.int64, device=blocks.device),
        )
        for number, stack in enumerate(self.stacks):
            size, heads = stack.block_size, stack.kv_heads
            if stack.scoring is None:
                continue
            inside = torch.arange(size, device=blocks.device)
            visible = (inside < filled[:, None]).view(1, -1)
            slots = self._slots(marked, len(blocks), size, blocks.device)
            for kind in (marked.marks, marked.regretted):
                kind[number] = _widened(kind[number], len(blocks) * size + len(marked.holes) * marked.block_size)
            for layers in self._parts(stack, queries, visible.shape[1]):
                groups = slice(layers.start * heads, layers.stop * heads)
                weights = attention_weights(
                    torch.cat([queries[name] for name in stack.layers[layers]])[:, None],
                    read_blocks(stack.keys[layers], blocks),
                    visible,
                    slice(0, visible.shape[1]),
                    stack.scoring.of(groups),
                )
                shares = weights.mean[:, 0]
                marks = marked.marks[number][groups, slots]
                fresh = marks & (shares >= marked.read_share) & ~marked.regretted[number][groups, slots]
                marked.regretted[number][groups, slots] |= fresh
                place = slice(stack.first * heads + groups.start, stack.first * heads + groups.stop)
                reads.missed[place] = (shares.double() * marks).sum(-1)
                reads.regretted[place] = fresh.sum(-1)
        return reads

    @staticmethod
    def _slots(marked: _Marked, count: int, size: int, device: torch.device) -> torch.Tensor:
        """Of the tokens in the resident blocks, the first `count`: int64 [tokens]."""
        split = marked.block_size // size
        logical = range(count + len(marked.holes) * split)
        if marked.holes:
            resident = torch.tensor([it for it in logical if it // split not in marked.holes][:count], device=device)
        else:
            resident = torch.arange(count, device=device)
        return (resident[:, None] * size + torch.arange(size, device=device)).flatten()

    @staticmethod
    def _parts(stack: CacheStack, queries: Mapping[str, torch.Tensor], tokens: int) -> Iterator[slice]:
        """Neighbouring layers that have queries, as many at a time as there is room for."""
        limit = max_scores(stack.keys.device)
        first = 0
        for place, name in enumerate(stack.layers):
            if name not in queries:
                if first < place:
                    yield slice(first, place)
                first = place + 1
                continue
            heads = queries[name].shape[0] * queries[name].shape[1]
            if place - first + 1 > max(1, limit // (heads * tokens)):
                yield slice(first, place)
                first = place
        if first < len(stack.layers):
            yield slice(first, len(stack.layers))


def _choose(candidates: VirtualCandidates, rule: KeepRule, room: int) -> torch.Tensor:
    """The candidates that would be kept, as `select_tokens`. room: in tokens."""
    return torch.cat([select_tokens(rule, candidates.read(layers), room) for layers in candidates.parts()])


def _widened(marks: torch.Tensor, slots: int) -> torch.Tensor:
    """With room for so many slots; nothing new is marked."""
    if marks.shape[1] >= slots:
        return marks
    more = torch.zeros(marks.shape[0], max(slots, 2 * marks.shape[1]), dtype=torch.bool, device=marks.device)
    more[:, : marks.shape[1]] = marks
    return more
