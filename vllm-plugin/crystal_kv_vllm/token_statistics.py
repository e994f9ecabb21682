"""The statistics of tokens in a worker: every query of a request counts, and the keys are read once for many of them.

A forward pass only copies queries into rings. They are counted when a ring is full, and before the tokens that they
saw are merged or let go; so counting later changes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch

from .answer_queries import AnswerQueries
from .attention_weights import attention_weights, log_sum, max_scores
from .cache_stack import CacheStack, read_blocks
from .followed_request import FollowedRequest, Resident
from .gen import policy_pb2 as pb
from .kept_statistics import CountedQueries, KeptStatistics
from .query_rings import QueryRings
from .slot_statistics import WINDOW_HALF, QuerySpan, SlotStatistics
from .uploads import upload
from .worker_io import MergeCommand, TableEntry


class TokenStatistics:
    def __init__(self, stacks: Sequence[CacheStack], block_size: int, ring: int) -> None:
        """block_size: of the scheduler; ring: queries of a request that are counted together, at most."""
        self._stacks = stacks
        self._block_size = block_size
        self._ring = ring
        self._kept: KeptStatistics | None = None
        self._slots: list[SlotStatistics] = []
        self._rings = QueryRings(stacks, ring)
        self._followed: dict[str, FollowedRequest] = {}

    def keep(self, kept: KeptStatistics | None) -> None:
        """Keeps these from now on; None: none, and what was kept is forgotten."""
        if kept == self._kept:
            return
        for request in self._followed.values():
            self._count_waiting(request)
        self._slots = [] if kept is None else self._made(kept)
        if kept is None:
            self._followed = {}
            self._rings.drop()
        self._kept = kept

    def _made(self, kept: KeptStatistics) -> list[SlotStatistics]:
        return [SlotStatistics(stack, kept, old) for stack, old in zip_longest(self._stacks, self._slots)]

    def forget(self, request_ids: Iterable[str]) -> None:
        """The caches of these requests are gone. What probes among them read still counts for their parents."""
        gone = [(name, self._followed.pop(name)) for name in request_ids if name in self._followed]
        for _, request in gone:
            request.gone = True
        for _, request in gone:
            if request.parent is not None and not request.parent.gone:
                self._count_waiting(request)
                request.parent.answers = request.answers or request.parent.answers
            self._rings.free(request.slot)

    def settle(self, request_ids: Iterable[str]) -> None:
        """Counts what waits of these requests: tokens that it saw are about to move or to go."""
        for name in request_ids:
            if name in self._followed:
                self._count_waiting(self._followed[name])

    def of_merges(self, merges: Iterable[tuple[str, MergeCommand]]) -> list[SlotStatistics]:
        """The statistics of tokens that are about to be merged, stack by stack; empty: none are kept.

        Blocks that a request got while its queries did not count may hold those of other tokens: these begin at 0.
        """
        for request_id, command in merges:
            self.of_blocks(request_id, (*command.into, *command.from_))
            self.ask_again(request_id, command)
        return self._slots

    def ask_again(self, request_id: str, command: MergeCommand) -> None:
        """Before a merge that goes by what answers read: asks the queries of the request's newest probe again.

        Only if the merge could let a token go that they were not asked of.
        """
        request = self._followed.get(request_id)
        if request is None or not request.answers or not self._goes_by_answers(command):
            return
        end = (max(entry.index for entry in (*command.into, *command.from_)) + 1) * self._block_size
        if end > request.answers.asked_up_to:
            for number in range(len(self._stacks)):
                self._ask(number, request, request.answers)
            request.answers.asked_up_to = request.tokens

    def _goes_by_answers(self, command: MergeCommand) -> bool:
        return self._keeps_answers and pb.STATISTIC_ANSWER in command.rule.statistics

    @property
    def _keeps_answers(self) -> bool:
        return self._kept is not None and pb.STATISTIC_ANSWER in self._kept.statistics

    def _ask(self, number: int, request: FollowedRequest, answers: AnswerQueries) -> None:
        stack = self._stacks[number]
        resident = self._resident(request, request.tokens, stack)
        blocks, size = resident.blocks[resident.counted], stack.block_size
        if stack.scoring is None or not len(blocks):
            return
        later = max(0, request.tokens - answers.start)
        visible = (resident.positions < request.tokens)[None].expand(answers.count, -1)
        counted = slice(resident.counted.start * size, resident.counted.stop * size)
        _, _, heads, group, width = answers.shape(number)
        # keys are copied, too, and there may be few queries
        for layers in self._some_layers(stack, heads * max(answers.count * group, width) * len(resident.positions)):
            queries, own = answers.of(number, layers)
            queries = queries.transpose(1, 2).flatten(0, 1).float()
            weights = attention_weights(
                queries if stack.rotation is None else stack.rotation.turn(queries, later),
                read_blocks(stack.keys[layers], resident.blocks),
                visible,
                counted,
                stack.scoring.of(slice(layers.start * heads, layers.stop * heads)),
                own,
            )
            self._slots[number].count_asked(layers, blocks, weights)

    @staticmethod
    def _some_layers(stack: CacheStack, numbers: int) -> Iterator[slice]:
        """Layers, as many at a time as there is room for. numbers: of a layer that are held at once."""
        some = max(1, max_scores(stack.keys.device) // numbers)
        for first in range(0, len(stack.layers), some):
            yield slice(first, min(first + some, len(stack.layers)))

    def of_blocks(self, request_id: str, blocks: Iterable[TableEntry]) -> list[SlotStatistics]:
        """The same for some of its blocks, none of which is of its prompt."""
        if self._slots:
            entries = [(entry.index, entry.block) for entry in blocks]
            request = self._followed.get(request_id)
            self._clear([block for _, block in entries] if request is None else request.learn(entries))
        return self._slots

    def punch(self, holes: Mapping[str, list[int]]) -> None:
        for name, blocks in holes.items():
            if name in self._followed:
                self._followed[name].punch(blocks)

    def follow(self, queries: Mapping[str, CountedQueries]) -> "CountedStep | None":
        """The queries of a step, before it is computed; a request comes before its probe. None: none counts."""
        if not self._slots:
            return None
        counted: list[tuple[str, FollowedRequest, CountedQueries, range]] = []
        for name, these in queries.items():
            request = self._request(name, these)
            if request is None:
                continue
            self._clear(request.extend(these))
            positions = range(max(these.start, these.counted_from), these.start + these.count)
            if not positions:
                continue
            counted.append((name, request, these, positions))
            if len(request.waiting) + len(positions) > self._ring:
                self._count_waiting(request)
        step = CountedStep(self)
        # a request's query comes before those of its probe
        for name, request, these, positions in sorted(counted, key=lambda entry: entry[1].parent is not None):
            first = positions.start - these.start
            place = self._rings.place(request.slot) + len(request.waiting)
            request.wait(positions)
            if len(positions) > self._ring:
                step.long[name] = first
                step.pieces[name] = self._take_pieces(request)
            else:
                step.copies[name] = (first, range(place, place + len(positions)))
        return step if step.copies or step.long else None

    def _request(self, name: str, queries: CountedQueries) -> FollowedRequest | None:
        if queries.first_block == 0:
            self.forget([name])
            parent = None if queries.parent is None else self._followed.get(queries.parent)
            if queries.parent is not None and parent is None:
                return None
            followed = FollowedRequest(self._rings.take(), queries.outputs, parent)
            if parent is not None and self._keeps_answers:
                followed.answers = AnswerQueries(queries.counted_from, queries.outputs[1] * self._block_size)
            self._followed[name] = followed
        return self._followed.get(name)

    def _clear(self, blocks: Sequence[int]) -> None:
        for stack, slots in zip(self._stacks, self._slots, strict=True):
            split = self._block_size // stack.block_size
            slots.clear([block * split + part for block in blocks for part in range(split)])

    def _count_waiting(self, request: FollowedRequest) -> None:
        for piece in self._take_pieces(request):
            for number, stack in enumerate(self._stacks):
                resident = piece.resident[number]
                count = len(piece.positions)
                # keys are copied, too, and there may be few queries
                rows = max(self._rings.heads_per_group(number) * count, stack.keys.shape[4])
                a_layer = stack.kv_heads * rows * len(resident.positions)
                for layers in self._some_layers(stack, a_layer):
                    self.count(number, layers, piece, self._rings.read(number, layers, request.slot, count))

    def _take_pieces(self, request: FollowedRequest) -> list["Piece"]:
        """What waits, in pieces of at most a ring; they are taken as counted."""
        waiting, parent_queries = request.waiting, request.parent_queries
        request.waiting, request.parent_queries = [], []
        if not waiting:
            return []
        resident = [self._resident(request, waiting[-1] + 1, stack) for stack in self._stacks]
        answers = None if request.parent is None else request.answers
        pieces = []
        for start in range(0, len(waiting), self._ring):
            positions = waiting[start : start + self._ring]
            ages = None
            if request.parent is not None:
                ages = [request.parent.counted - it for it in parent_queries[start : start + self._ring]]
            place = 0 if answers is None else answers.take(len(positions))
            pieces.append(Piece(positions, request.window, ages, resident, answers, place))
            request.window = positions[-1] // WINDOW_HALF
            request.counted += len(positions)
        return pieces

    def _resident(self, request: FollowedRequest, length: int, stack: CacheStack) -> Resident:
        return request.resident(length, stack.block_size, self._block_size // stack.block_size, stack.keys.device)

    def count(self, number: int, layers: slice, piece: "Piece", queries: torch.Tensor) -> None:
        """queries: [layers, queries, kv heads, query heads of a group, head size], of a stack, by its number."""
        stack, resident = self._stacks[number], piece.resident[number]
        if stack.scoring is None:
            return
        groups = slice(layers.start * stack.kv_heads, layers.stop * stack.kv_heads)
        size, scoring = stack.block_size, stack.scoring.of(groups)
        grouped = queries.transpose(1, 2).flatten(0, 1)
        keys = read_blocks(stack.keys[layers], resident.blocks)
        visible = resident.positions <= upload(piece.positions, resident.positions.device)[:, None]
        if piece.answers is not None:
            # the keys from the block on that its first own token is in
            tail = slice(resident.place_of(piece.answers.start) * size, None)
            own = (visible & (resident.positions >= piece.answers.start))[:, tail]
            sums = log_sum(grouped, keys[:, tail], own, scoring)
            piece.answers.put(number, len(stack.layers), layers, piece.place, queries, sums)
        counted = slice(resident.counted.start * size, resident.counted.stop * size)
        weights = attention_weights(grouped, keys, visible, counted, scoring)
        blocks = resident.blocks[resident.counted]
        if not len(blocks):
            return
        if piece.ages is None:
            self._slots[number].count(layers, blocks, weights, QuerySpan(piece.positions, piece.window))
        else:
            self._slots[number].count_probe(layers, blocks, weights, piece.ages)

    def store(self, layer: str, queries: torch.Tensor, places: torch.Tensor) -> None:
        self._rings.write(layer, queries, places)

    def count_layer(self, layer: str, pieces: Sequence["Piece"], queries: torch.Tensor) -> None:
        """queries: [queries of all pieces, kv heads, query heads of a group, head size]"""
        number, place = self._rings.layer(layer)
        for part, piece in enumerate(pieces):
            some = queries[part * self._ring : (part + 1) * self._ring]
            self.count(number, slice(place, place + 1), piece, some[None])


@dataclass(frozen=True)
class Piece:
    """Queries of a request that are counted together."""

    positions: Sequence[int]
    #: Half window of the newest query before them.
    window: int
    #: Of an answer probe: how many of its parent's counted queries came after each.
    ages: Sequence[int] | None
    #: By stack.
    resident: Sequence[Resident]
    #: Of an answer probe: takes the queries, to ask them again, from this place on.
    answers: AnswerQueries | None = None
    place: int = 0


@dataclass
class CountedStep:
    """The queries of one step (see `StepQueries`)."""

    statistics: TokenStatistics
    copies: dict[str, tuple[int, range]] = field(default_factory=dict)
    long: dict[str, int] = field(default_factory=dict)
    pieces: dict[str, list[Piece]] = field(default_factory=dict)

    def store(self, layer: str, queries: torch.Tensor, places: torch.Tensor) -> None:
        self.statistics.store(layer, queries, places)

    def count(self, layer: str, request_id: str, queries: torch.Tensor) -> None:
        self.statistics.count_layer(layer, self.pieces[request_id], queries)
