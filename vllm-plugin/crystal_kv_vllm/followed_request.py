"""What a worker knows of a request whose queries count: its row of blocks, and the queries that wait to be counted."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .answer_queries import AnswerQueries
from .kept_statistics import CountedQueries
from .uploads import upload


@dataclass(frozen=True)
class Resident:
    """The blocks that a request's queries read, in logical order. Blocks are the attention kernel's."""

    #: Numbers in the pool: int64 [blocks].
    blocks: torch.Tensor
    #: Where each token is, or in a merged block one that is as old: int64 [blocks * block size].
    positions: torch.Tensor
    #: The blocks, of these, in whose tokens the queries count.
    counted: slice
    #: Logical blocks, ascending.
    logical: Sequence[int]
    #: Tokens in a block.
    block_size: int

    def place_of(self, position: int) -> int:
        """Of the first block that may hold tokens from this position on, if nothing was merged after it."""
        return bisect_left(self.logical, position // self.block_size)


@dataclass(eq=False)
class FollowedRequest:
    #: Place of its queries in the rings.
    slot: int
    #: The logical blocks in whose tokens its queries count: from the first up to, not including, the second.
    outputs: tuple[int, int]
    #: Of an answer probe: the request that it was forked from.
    parent: "FollowedRequest | None"
    #: The scheduler's block of each logical block; 0: a hole.
    row: list[int] = field(default_factory=list)
    #: Positions of the queries in its ring.
    waiting: list[int] = field(default_factory=list)
    #: Of an answer probe: how many queries of its parent had been computed at each of them.
    parent_queries: list[int] = field(default_factory=list)
    #: Queries that were counted.
    counted: int = 0
    #: Half window of the newest of them.
    window: int = -1
    #: Tokens in its cache, as far as its queries tell.
    tokens: int = 0
    #: Of an answer probe, its own; of a request, those of its newest probe.
    answers: AnswerQueries | None = None
    #: Its cache is gone.
    gone: bool = False

    @property
    def computed(self) -> int:
        """Its queries in all."""
        return self.counted + len(self.waiting)

    def extend(self, queries: CountedQueries) -> list[int]:
        """Takes note of new blocks. Returns those that hold tokens whose statistics begin with these queries."""
        return self.learn(list(enumerate(queries.blocks, queries.first_block)))

    def learn(self, entries: Sequence[tuple[int, int]]) -> list[int]:
        """Takes note of blocks, each with its logical index. Returns those that are new, and hold output of its own."""
        fresh = []
        for index, block in entries:
            if index >= len(self.row):
                self.row.extend([0] * (index + 1 - len(self.row)))
            if block != self.row[index] and index >= self.outputs[0] and self.parent is None:
                fresh.append(block)
            self.row[index] = block
        return [block for block in fresh if block]

    def wait(self, positions: Sequence[int]) -> None:
        """Queries at these positions are about to be computed."""
        self.waiting.extend(positions)
        self.tokens = max(self.tokens, positions[-1] + 1)
        if self.parent is not None:
            self.parent_queries.extend([self.parent.computed] * len(positions))

    def punch(self, blocks: list[int]) -> None:
        """These logical blocks became holes."""
        for block in blocks:
            if block < len(self.row):
                self.row[block] = 0

    def resident(self, length: int, block_size: int, split: int, device: torch.device) -> Resident:
        """length: tokens up to the newest query; block_size: of the kernel; split: its blocks in a block of a row."""
        logical = range(-(-length // (block_size * split)))
        entries = [
            (index * split + part, self.row[index] * split + part)
            for index in logical
            if self.row[index]
            for part in range(split)
        ]
        first, last = (bound * split for bound in self.outputs)
        before = sum(index < first for index, _ in entries)
        until = sum(index < last for index, _ in entries)
        index, blocks = upload(entries, device).unbind(1)
        positions = index[:, None] * block_size + torch.arange(block_size, device=device)
        return Resident(blocks, positions.flatten(), slice(before, until), [it for it, _ in entries], block_size)
