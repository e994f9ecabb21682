"""Evictions and merges of KV blocks: done in the block manager at once, and by the workers with the next step."""

from collections.abc import Sequence

from .evict import Block
from .keep_rule import KeepRule
from .manager import CrystalManager
from .tracked_request import TrackedRequest
from .worker_io import MergeCommand, TableEntry, WorkerCommands


class BlockChanges:
    """Asks nothing: what may be evicted or merged was checked before."""

    def __init__(self, manager: CrystalManager) -> None:
        self._manager = manager
        self._commands = WorkerCommands()

    def row(self, tracked: TrackedRequest) -> Sequence[Block]:
        return self._manager.row(tracked.request_id)

    def evict(self, tracked: TrackedRequest, indices: Sequence[int]) -> None:
        if indices:
            self._manager.punch(tracked.request_id, indices)
            self._commands.holes.setdefault(tracked.request_id, []).extend(indices)

    def merge(self, tracked: TrackedRequest, into: Sequence[int], from_: Sequence[int], rule: KeepRule) -> None:
        name, size = tracked.request_id, self._manager.block_size
        row = self._manager.row(name)
        named = {*into, *from_}
        full = range(-(-tracked.request.num_prompt_tokens // size), tracked.computed // size)
        beside = [index for index in full if not row[index].is_null and index not in named]
        into_entries, from_entries, beside_entries = (
            [TableEntry(index, row[index].block_id) for index in indices] for indices in (into, from_, beside)
        )
        merge = MergeCommand(into_entries, from_entries, beside_entries, size, rule)
        self._commands.merges.setdefault(name, []).append(merge)
        self._manager.withdraw(name, named)
        self.evict(tracked, from_)

    def take_commands(self) -> WorkerCommands:
        """What the workers have to do with the next step; it is handed out once."""
        commands, self._commands = self._commands, WorkerCommands()
        return commands
