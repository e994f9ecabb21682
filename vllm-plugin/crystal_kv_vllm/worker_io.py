"""What scheduler and workers tell each other about one step.

Both ride on objects that vLLM passes anyway, as an extra attribute: commands on the `SchedulerOutput`, masses on the
`ModelRunnerOutput`. So there is one way for every executor, in one process or in many, and only the scheduler's process
talks to the policy service. With tensor parallelism the masses are those of rank 0, whose output vLLM returns.
"""

from dataclasses import dataclass, field
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput

from .head_groups import HeadGroup
from .keep_rule import KeepRule
from .kept_statistics import CountedQueries, KeptStatistics

_COMMANDS = "crystal_kv_commands"
_MASSES = "crystal_kv_masses"
_READS = "crystal_kv_reads"

#: Log codes by request id: head group by head group, one byte for each resident block in logical order.
Masses = dict[str, bytes]


@dataclass(frozen=True)
class TableEntry:
    """A block of a request: its logical index, and its number in the pool."""

    index: int
    block: int


@dataclass(frozen=True)
class MergeCommand:
    """Puts the tokens of `into` and `from_` into `into`, as far as there is room."""

    into: list[TableEntry]
    from_: list[TableEntry]
    #: The request's other full output blocks: repetitions in them count, and nothing in them changes.
    beside: list[TableEntry]
    #: Tokens in a block of the scheduler.
    block_size: int
    #: Which tokens stay.
    rule: KeepRule


@dataclass(frozen=True)
class ShadowCommand:
    """Marks the tokens that a request would lose; carries nothing out."""

    #: What was marked before is forgotten first.
    begin: bool
    #: Logical blocks; they lose the tokens that they would hold by now.
    evict: list[int]
    #: After the evictions, in this order.
    merges: list[MergeCommand]
    #: The request's full output blocks, in which all tokens that its blocks would hold are.
    row: list[TableEntry]
    #: Its logical blocks that are really holes.
    holes: list[int]
    #: Tokens in a block of the scheduler.
    block_size: int
    #: See ShadowReads.regretted_tokens in the contract.
    read_share: float


@dataclass(frozen=True)
class MarkedReads:
    """What the measured query of a request gives to tokens that are marked; see ShadowReads in the contract."""

    missed_mass: float
    regretted_tokens: int


@dataclass
class WorkerCommands:
    """What the workers have to do beside computing."""

    step: int = 0
    #: Logical blocks that became holes, by request id.
    holes: dict[str, list[int]] = field(default_factory=dict)
    #: Merges by request id, in the order in which they are to be done; before anything is computed.
    merges: dict[str, list[MergeCommand]] = field(default_factory=dict)
    #: Shadow plans by request id, in the order in which they came; after merges and holes.
    shadow: dict[str, list[ShadowCommand]] = field(default_factory=dict)
    #: Statistics of tokens to keep; None: none.
    kept: KeptStatistics | None = None
    #: The queries of this step that count in them, by request id.
    queries: dict[str, CountedQueries] = field(default_factory=dict)
    #: Requests to measure in this step.
    measure: set[str] = field(default_factory=set)
    #: Head groups to measure, in the order of the report.
    head_groups: tuple[HeadGroup, ...] = ()


def attach_commands(output: SchedulerOutput, commands: WorkerCommands) -> None:
    setattr(output, _COMMANDS, commands)


def commands_of(output: SchedulerOutput) -> WorkerCommands | None:
    return getattr(output, _COMMANDS, None)


def attach_masses(output: Any, masses: Masses, reads: dict[str, MarkedReads]) -> None:
    setattr(output, _MASSES, masses)
    setattr(output, _READS, reads)


def masses_of(output: Any) -> Masses:
    return getattr(output, _MASSES, {})


def reads_of(output: Any) -> dict[str, MarkedReads]:
    """Of the measured requests of which tokens are marked."""
    return getattr(output, _READS, {})
