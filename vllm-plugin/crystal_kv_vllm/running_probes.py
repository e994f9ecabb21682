"""The answer probes of an engine: when one may start, what it shares with its parent, when it has to go."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from .evict import Block
from .gen import policy_pb2 as pb
from .live_requests import LiveRequests
from .manager import CrystalManager
from .probe import can_fork, fork_request, is_probe
from .reporter import Reporter
from .tracked_request import TrackedRequest


class SchedulerPart(Protocol):
    """What the plugin needs of vLLM's scheduler."""

    running: list[Request]
    waiting: Any
    max_num_active_reqs: int
    num_waiting_for_streaming_input: int

    def add_request(self, request: Request) -> None: ...

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]: ...

    def get_request_counts(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class ProbeOptions:
    #: What a probe appends to its parent's tokens; None: there are no probes.
    suffix: tuple[int, ...] | None
    max_model_len: int


class RunningProbes:
    def __init__(
        self,
        scheduler: SchedulerPart,
        manager: CrystalManager,
        live: LiveRequests,
        reporter: Reporter,
        options: ProbeOptions,
    ) -> None:
        self._scheduler = scheduler
        self._manager = manager
        self._live = live
        self._reporter = reporter
        self._options = options
        self.started = 0
        #: Probes that had been started when outputs were last looked at, and whether any was alive then.
        self._hidden = (0, False)
        #: Tokens computed for probes that have ended.
        self.computed_tokens = 0

    def start(self, parent: TrackedRequest) -> "pb.ProbeAnswer.ValueType":
        """Queues a probe, which starts in this step or not at all: it never preempts anyone, nor blocks the queue."""
        suffix = self._options.suffix
        tokens = self._reporter.probe_tokens
        request = parent.request
        thinking = parent.phase == pb.PHASE_THINKING and parent.generated > 0
        if suffix is None or tokens == 0 or not thinking or not can_fork(request):
            return pb.PROBE_ANSWER_UNSUPPORTED
        longest = request.num_tokens + len(suffix) + tokens
        busy = parent.probe is not None or request.status != RequestStatus.RUNNING
        if busy or longest > self._options.max_model_len or not self._has_room(longest, self._full_blocks(parent)):
            return pb.PROBE_ANSWER_NO_ROOM
        fork = self._live.add(fork_request(self._live.next_handle, request, suffix, tokens), parent)
        fork.counted_from = request.num_tokens
        self._manager.keep_private(fork.request_id)
        self._scheduler.add_request(fork.request)
        # it goes before those that wait: it is known to fit
        self._scheduler.waiting.remove_requests([fork.request])
        self._scheduler.waiting.prepend_request(fork.request)
        self.started += 1
        started = fork.started(self._manager.holes(parent.request_id))
        started.computed_tokens = self._full_blocks(parent) * self._manager.block_size
        self._reporter.started(started)
        return pb.PROBE_ANSWER_STARTED

    def count_running(self) -> int:
        """How many of vLLM's running requests are probes."""
        return sum(probe.request.status == RequestStatus.RUNNING for probe in self._live.probes)

    def shared_prefix(self, request: Request) -> list[Block] | None:
        """The blocks that a probe takes over from its parent, holes included; None for every other request.

        Asked at the moment of admission, since only blocks that the parent has filled by then may be shared.
        """
        tracked = self._live.by_id(request.request_id)
        if tracked is None or tracked.parent is None:
            return None
        tracked.shared_blocks = self._full_blocks(tracked.parent)
        return list(self._manager.row(tracked.parent.request_id)[: tracked.shared_blocks])

    def drop_orphans(self, forget: Callable[[TrackedRequest], None]) -> None:
        """Ends probes that were not admitted at once or were preempted, or whose parent has ended or was preempted.

        forget: called before vLLM ends such a probe.
        """
        for fork in self._live.probes:
            if self._live.by_id(fork.request_id) is not fork:
                # ending one asks for the others too
                continue
            parent = _parent(fork)
            alive = self._live.by_id(parent.request_id) is parent and parent.request.status == RequestStatus.RUNNING
            if alive and fork.request.status == RequestStatus.RUNNING:
                continue
            forget(fork)
            self._scheduler.finish_requests(fork.request_id, RequestStatus.FINISHED_ABORTED)

    def hide(self, outputs: dict[int, EngineCoreOutputs]) -> None:
        """Takes probes out of the outputs of a step. Their carrier stays: it holds the statistics too."""
        started, were_alive = self._hidden
        self._hidden = (self.started, bool(self._live.probes))
        # what a probe says last comes with the step in which it ends, or with the one after
        if not (were_alive or self._hidden[1] or self.started != started):
            return
        for carrier in outputs.values():
            carrier.outputs = [output for output in carrier.outputs if not is_probe(output.request_id)]
            if carrier.finished_requests:
                carrier.finished_requests = {name for name in carrier.finished_requests if not is_probe(name)}

    def _full_blocks(self, tracked: TrackedRequest) -> int:
        return tracked.computed // self._manager.block_size

    def _has_room(self, tokens: int, shared_blocks: int) -> bool:
        """A free slot, and every block that a probe of so many tokens will ever use, beside those already queued.

        And what the running requests will allocate while it runs: the probe must not be what preempts them.
        """
        scheduler = self._scheduler
        queued = [fork for fork in self._live.probes if fork.request.status != RequestStatus.RUNNING]
        slots = scheduler.max_num_active_reqs - scheduler.num_waiting_for_streaming_input
        if len(scheduler.running) + len(queued) >= slots:
            return False
        free = self._manager.free_blocks
        wanted = self._blocks(tokens) - shared_blocks
        for fork in queued:
            wanted += self._blocks(_longest(fork.request)) - self._full_blocks(_parent(fork))
        if wanted > free:
            return False
        steps = 1 + self._reporter.probe_tokens
        for running in scheduler.running:
            ahead = self._blocks(min(running.num_tokens + steps, _longest(running)))
            wanted += max(0, ahead - len(self._manager.row(running.request_id)))
        return wanted <= free

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._manager.block_size)


def _longest(request: Request) -> int:
    """Most tokens that the request can have."""
    return request.num_prompt_tokens + request.max_tokens


def _parent(fork: TrackedRequest) -> TrackedRequest:
    assert fork.parent is not None
    return fork.parent
