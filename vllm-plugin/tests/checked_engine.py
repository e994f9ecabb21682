"""The simulated engine with a worker that knows what each slot of the cache holds, and checks each slot that is read.

What a slot holds is the hash of a token and of all tokens before it. It is exact if it was computed with all of them in
the cache; what is not may be read by the request that computed it, and by its probes, and by nobody else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from engine import BLOCK_SIZE
from simulated_engine import SimulatedEngine
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from crystal_kv_vllm.worker_io import TableEntry, WorkerCommands, commands_of

#: What a slot holds: nothing, or some token of a merge.
EMPTY, MERGED = 0, -1
#: More tokens than any request has.
LONGEST = 1024


class WrongReadError(AssertionError):
    """A request read, or the plugin changed, what it must not."""


@dataclass(frozen=True)
class Scheduled:
    """A request of a step, when that was scheduled."""

    request: Request
    tokens: list[int]
    #: The positions that the step computes: from the first up to, not including, the second.
    start: int
    end: int


class WorkerRequest:
    """What the worker knows of a request: its tokens, and the block of each logical block; 0: a hole."""

    def __init__(self, name: str, tokens: Sequence[int], salt: str | None, parent: str | None) -> None:
        self.readable = {name, parent}
        self.tokens = list(tokens)
        self.row: list[int] = []
        self._salt = salt
        self._keys = np.zeros(LONGEST, dtype=np.int64)
        self._known = 0

    def keys(self, count: int) -> Any:
        """Hashes of its first tokens."""
        for place in range(self._known, count):
            before = int(self._keys[place - 1]) if place else self._salt
            self._keys[place] = hash((before, self.tokens[place]))
        self._known = max(self._known, count)
        return self._keys[:count]


class CheckedEngine(SimulatedEngine):
    def __init__(self, model: str, pool_blocks: int, **options: Any) -> None:
        super().__init__(model, pool_blocks=pool_blocks, **options)
        self.pool_blocks = pool_blocks
        self.done: Counter[str] = Counter()
        shape = (pool_blocks + 1, BLOCK_SIZE)
        self._content = np.full(shape, EMPTY, dtype=np.int64)
        self._exact = np.zeros(shape, dtype=bool)
        self._owner = np.full(pool_blocks + 1, None, dtype=object)
        self._requests: dict[str, WorkerRequest] = {}
        #: The request of each probe that was ever scheduled.
        self._parents: dict[str, str] = {}

    def _note(self, output: SchedulerOutput) -> dict[str, Scheduled]:
        self._parents.update({it.request_id: it.parent.request_id for it in self.hooks.live.probes})
        requests = ((name, self.scheduler.requests[name], count) for name, count in output.num_scheduled_tokens.items())
        return {
            name: Scheduled(it, list(it.all_token_ids), it.num_computed_tokens - count, it.num_computed_tokens)
            for name, it, count in requests
        }

    def _run(self, output: SchedulerOutput, note: dict[str, Scheduled]) -> dict[str, list[int]]:
        commands = commands_of(output) or WorkerCommands()
        gone = output.finished_req_ids | (output.preempted_req_ids or set())
        for name in gone:
            self._requests.pop(name, None)
        self._change(commands, gone)
        self._update(output, note)
        self._check_rows(commands)
        for name, scheduled in note.items():
            self._write(name, scheduled.start, scheduled.end)
        for name, scheduled in note.items():
            self._read(name, scheduled.end)
        return {name: self._sample(name, scheduled) for name, scheduled in note.items()}

    def _change(self, commands: WorkerCommands, gone: set[str]) -> None:
        """Merges and holes, before anything of the step is computed."""
        for name, merges in commands.merges.items():
            for merge in merges if name not in gone else ():
                self._same_blocks(name, [*merge.into, *merge.from_, *merge.beside])
                for entry in (*merge.into, *merge.from_):
                    if (self._content[entry.block] == EMPTY).any():
                        raise WrongReadError(f"{name} merges a block that is not full")
                    if self._owner[entry.block] != name and not self._exact[entry.block].all():
                        raise WrongReadError(f"{name} merges what another request computed")
                for entry in merge.into:
                    self._content[entry.block] = MERGED
                    self._exact[entry.block] = False
                    self._owner[entry.block] = name
                self.done["merges"] += 1
        for name, indices in commands.holes.items():
            for index in indices if name in self._requests and name not in gone else ():
                self._requests[name].row[index] = 0
                self.done["holes"] += 1
        for name, shadows in commands.shadow.items():
            for shadow in shadows if name not in gone else ():
                self._same_blocks(name, shadow.row)
                self.done["shadow plans"] += 1

    def _same_blocks(self, name: str, entries: Sequence[TableEntry]) -> None:
        """A request that was not scheduled since it came has no row yet."""
        row = self._requests[name].row if name in self._requests else None
        for entry in entries:
            if row is not None and row[entry.index] != entry.block:
                raise WrongReadError(f"{name} has block {row[entry.index]} at {entry.index}, not {entry.block}")

    def _update(self, output: SchedulerOutput, note: dict[str, Scheduled]) -> None:
        """As vLLM's model runner follows the scheduler."""
        for new in output.scheduled_new_reqs:
            self._requests[new.req_id] = self._made(new.req_id, note)
            self._requests[new.req_id].row = list(new.block_ids[0])
            self.done["probes"] += new.req_id in self._parents
        cached = output.scheduled_cached_reqs
        for name, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            if name in cached.resumed_req_ids:
                self._requests[name] = self._made(name, note)
                self.done["resumed"] += 1
            self._requests[name].row.extend(blocks[0] if blocks else [])

    def _made(self, name: str, note: dict[str, Scheduled]) -> WorkerRequest:
        scheduled = note[name]
        return WorkerRequest(name, scheduled.tokens, scheduled.request.cache_salt, self._parents.get(name))

    def _check_rows(self, commands: WorkerCommands) -> None:
        """What statistics of tokens are told of rows is what attention reads."""
        for name, queries in commands.queries.items():
            row = self._requests[name].row
            told = list(queries.blocks)
            if row[queries.first_block : queries.first_block + len(told)] != told:
                raise WrongReadError(f"the statistics of {name} are told of other blocks")

    def _write(self, name: str, start: int, end: int) -> None:
        request = self._requests[name]
        if end > len(request.tokens) or -(-end // BLOCK_SIZE) > len(request.row):
            raise WrongReadError(f"{name} computes more than it has tokens or blocks for")
        before = request.row[: -(-start // BLOCK_SIZE)]
        exact = 0 not in before and bool(self._exact[before].reshape(-1)[:start].all())
        keys = request.keys(end)
        for index in range(start // BLOCK_SIZE, -(-end // BLOCK_SIZE)):
            block = request.row[index]
            first, last = max(start, index * BLOCK_SIZE), min(end, (index + 1) * BLOCK_SIZE)
            if block == 0:
                raise WrongReadError(f"{name} writes into a hole at {first}")
            if first == index * BLOCK_SIZE:
                self._content[block] = EMPTY
                self._exact[block] = True
                self._owner[block] = name
            elif self._owner[block] != name:
                raise WrongReadError(f"{name} writes into a block of {self._owner[block]}")
            slots = slice(first - index * BLOCK_SIZE, last - index * BLOCK_SIZE)
            self._content[block, slots] = keys[first:last]
            self._exact[block, slots] = exact

    def _read(self, name: str, end: int) -> None:
        request = self._requests[name]
        row = np.array(request.row[: -(-end // BLOCK_SIZE)])
        resident = np.repeat(row != 0, BLOCK_SIZE)[:end]
        held = self._content[row].reshape(-1)[:end]
        own = np.repeat([self._owner[block] in request.readable for block in row], BLOCK_SIZE)[:end]
        exact = self._exact[row].reshape(-1)[:end]
        wrong = resident & ((held == EMPTY) | np.where(held == MERGED, ~own, held != request.keys(end)))
        approximate = resident & ~exact & ~own
        for what, where in (("an empty or a foreign slot", wrong), ("what others computed with holes", approximate)):
            if where.any():
                place = int(where.argmax())
                raise WrongReadError(f"{name} reads {what} at {place}, block {row[place // BLOCK_SIZE]}")
        self.done["holes passed"] += int((row == 0).sum())

    def _sample(self, name: str, scheduled: Scheduled) -> list[int]:
        tokens = self._requests[name].tokens
        if scheduled.end < len(tokens):
            return []
        tokens.append(self._next_token(scheduled.request))
        return tokens[-1:]

    def check_pool(self) -> None:
        """No block is lost, and none is free and in use."""
        pool = self.scheduler.kv_cache_manager.block_pool
        used = Counter(block.block_id for row in self.hooks.manager.req_to_blocks.values() for block in row)
        free = [block.block_id for block in pool.free_block_queue.get_all_free_blocks()]
        assert len(set(free)) == len(free) == pool.get_num_free_blocks()
        assert not set(free) & set(used)
        for block in pool.blocks[1:]:
            assert block.ref_cnt == used[block.block_id], block
