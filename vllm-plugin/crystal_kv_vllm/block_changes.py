"""Evictions and merges of KV blocks: done in the block manager at once, and by the workers with the next step."""

from collections.abc import Collection, Sequence

from .evict import Block
from .keep_rule import KeepRule
from .manager import CrystalManager
from .tracked_request import TrackedRequest
from .worker_io import MergeCommand, ShadowCommand, TableEntry, WorkerCommands


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
        name = tracked.request_id
        self._commands.merges.setdefault(name, []).append(self.merge_command(tracked, into, from_, rule, gone=()))
        self._manager.withdraw(name, {*into, *from_})
        self.evict(tracked, from_)

    def merge_command(
        self,
        tracked: TrackedRequest,
        into: Sequence[int],
        from_: Sequence[int],
        rule: KeepRule,
        gone: Collection[int],
    ) -> MergeCommand:
        """gone: blocks that would be holes."""
        named = {*into, *from_}
        row = self._manager.row(tracked.request_id)
        beside = [index for index in self._full(tracked) if index not in named and index not in gone]
        into_entries, from_entries, beside_entries = (
            [TableEntry(index, row[index].block_id) for index in indices] for indices in (into, from_, beside)
        )
        return MergeCommand(into_entries, from_entries, beside_entries, self._manager.block_size, rule)

    def shadow(
        self,
        tracked: TrackedRequest,
        *,
        begin: bool,
        evict: Sequence[int],
        merges: Sequence[MergeCommand],
        read_share: float,
    ) -> None:
        """Nothing leaves; the workers mark what would."""
        name = tracked.request_id
        row = self._manager.row(name)
        command = ShadowCommand(
            begin=begin,
            evict=list(evict),
            merges=list(merges),
            row=[TableEntry(index, row[index].block_id) for index in self._full(tracked)],
            holes=[index for index, block in enumerate(row) if block.is_null],
            block_size=self._manager.block_size,
            read_share=read_share,
        )
        self._commands.shadow.setdefault(name, []).append(command)

    def _full(self, tracked: TrackedRequest) -> list[int]:
        """The logical blocks of the output that are full and in the cache."""
        size = self._manager.block_size
        row = self._manager.row(tracked.request_id)
        full = range(-(-tracked.request.num_prompt_tokens // size), tracked.computed // size)
        return [index for index in full if not row[index].is_null]

    def take_commands(self) -> WorkerCommands:
        """What the workers have to do with the next step; it is handed out once."""
        commands, self._commands = self._commands, WorkerCommands()
        return commands
