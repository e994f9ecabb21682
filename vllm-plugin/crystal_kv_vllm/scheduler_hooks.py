"""What vLLM's scheduler calls before and after each of its own actions."""

from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from .block_changes import BlockChanges
from .evict import Protection
from .gen import policy_pb2 as pb
from .head_groups import HeadGroups
from .live_requests import LiveRequests
from .manager import CrystalManager
from .output_markers import OutputMarkers
from .plans import PlanApplier
from .policy_session import PolicySession
from .query_plan import QueryPlan
from .reporter import ComputedRequest, Reporter
from .running_probes import ProbeOptions, RunningProbes, SchedulerPart
from .tracked_request import TrackedRequest
from .worker_io import MarkedReads, Masses, WorkerCommands, attach_commands

_FINISHES = {
    RequestStatus.FINISHED_STOPPED: pb.FINISH_REASON_STOP,
    RequestStatus.FINISHED_REPETITION: pb.FINISH_REASON_STOP,
    RequestStatus.FINISHED_LENGTH_CAPPED: pb.FINISH_REASON_LENGTH,
    RequestStatus.FINISHED_IGNORED: pb.FINISH_REASON_LENGTH,
}


@dataclass(frozen=True)
class HookOptions:
    protection: Protection
    markers: OutputMarkers
    max_model_len: int
    head_groups: HeadGroups
    #: vLLM's prefix caching is on; without it there are no probes.
    prefix_caching: bool
    #: Longest wait for the plan of a step, in seconds; None: never wait.
    lockstep_timeout: float | None
    #: A policy service is expected: steps without one count as missed.
    managed: bool
    #: Bytes of a block's keys and values, on all ranks.
    block_bytes: int


class SchedulerHooks:
    """Not thread-safe by itself: all of it, and of its parts, is used under `lock`."""

    def __init__(self, scheduler: SchedulerPart, manager: CrystalManager, options: HookOptions) -> None:
        lockstep_timeout = options.lockstep_timeout
        suffix = (options.markers.probe_suffix or None) if options.prefix_caching else None
        self.options = options
        self.manager = manager
        self.reporter = Reporter(
            manager.block_size, options.protection.recent_tokens, every_step=lockstep_timeout is not None
        )
        self.live = LiveRequests()
        self.queries = QueryPlan(manager)
        self.session = PolicySession(
            self.live, manager, self.reporter, self.queries, len(options.head_groups), lockstep_timeout
        )
        self.lock = self.session.lock
        self.probes = RunningProbes(
            scheduler, manager, self.live, self.reporter, ProbeOptions(suffix, options.max_model_len)
        )
        self._changes = BlockChanges(manager)
        self.plans = PlanApplier(
            self.live, self._changes, self.probes, self.queries, manager.block_size, options.protection
        )
        self._scheduler = scheduler
        #: Requests of the steps that are being computed, by step.
        self._computed: dict[int, list[ComputedRequest]] = {}
        self._ended: list[tuple[TrackedRequest, pb.FinishReason.ValueType]] = []
        self._updating = False
        #: The newest step that was scheduled.
        self.step = 0
        self.preemptions = 0
        self.missed_steps = 0
        self.measured_rows = 0

    def request_added(self, request: Request) -> None:
        """A request was added: a client's, or a probe, which is known already."""
        if self.live.by_id(request.request_id) is None:
            self.reporter.started(self.live.add(request).started(()))

    def before_schedule(self) -> None:
        """In lockstep waits for the last step's plan; applies the plans that came."""
        self.missed_steps += not self.session.await_plan()
        # vLLM can preempt between two steps (reset of the prefix cache), and resume at once
        self._drop_orphans()
        for plan in self.session.take_plans():
            requests = self.plans.apply(plan, self.step)
            if requests:
                self.reporter.ack(plan.sequence, self.step + 1, requests)

    def after_schedule(self, output: SchedulerOutput) -> None:
        """Records what was scheduled, and gives the workers their commands."""
        for request_id in output.preempted_req_ids or ():
            self._preempted(request_id)
        self._drop_orphans()
        commands = self._changes.take_commands()
        commands.kept = self.queries.kept
        if output.total_num_scheduled_tokens > 0:
            self.step += 1
            commands.step = self.step
            if self.options.managed or self.reporter.attached:
                self.missed_steps += not self.reporter.attached
                self._computed[self.step] = self._record_computed(output.num_scheduled_tokens, commands)
                if commands.measure:
                    commands.head_groups = self.options.head_groups.select(self.reporter.head_groups)
        if commands.holes or commands.merges or commands.shadow or commands.step:
            attach_commands(output, commands)

    def before_update(self) -> None:
        self._updating = True

    def after_update(
        self, step: int, masses: Masses, reads: dict[str, MarkedReads], outputs: dict[int, EngineCoreOutputs]
    ) -> None:
        """Reports a computed step, then the requests that ended with it; removes probes from vLLM's outputs."""
        self._updating = False
        self.probes.hide(outputs)
        computed = self._computed.pop(step, [])
        markers = self.options.markers
        worth_a_look = markers.worth_a_look
        for tracked, _, _ in computed:
            request = tracked.request
            length = request.num_tokens
            # as a rule there is one new token, which means nothing
            if length == tracked.scanned + 1 and request.all_token_ids[-1] not in worth_a_look:
                tracked.scanned = length
            elif length != tracked.scanned:
                tracked.scan(markers)
        if step > 0:
            self.measured_rows += len(masses)
            self.reporter.step(step, self._pool_state(), computed, masses, reads)
        self._report_ended()
        self._drop_orphans()

    def request_ending(self, request: Request) -> None:
        """A request has ended, and vLLM is about to free its blocks."""
        tracked = self.live.by_id(request.request_id)
        if tracked is None:
            return
        tracked.scan(self.options.markers)
        if tracked.release_thinking and tracked.thinking_end is not None:
            # The answer goes too: nobody finds it without the thinking before it. Nor a block of prompt and thinking.
            # What never ended its thinking may be an answer without any, which the next turn repeats.
            self.manager.release_from(request.request_id, request.num_prompt_tokens // self.manager.block_size)
        self._forget(tracked, _FINISHES.get(request.status, pb.FINISH_REASON_ABORT))

    def after_finish(self) -> None:
        """Requests were ended from outside."""
        if not self._updating:
            self._drop_orphans()

    def _forget(self, tracked: TrackedRequest, reason: "pb.FinishReason.ValueType") -> None:
        self.live.remove(tracked)
        self.queries.forget(tracked.request_id)
        if tracked.parent is not None:
            self.probes.computed_tokens += tracked.computed_in_all
        self._ended.append((tracked, reason))
        if not self._updating:
            self._report_ended()

    def _report_ended(self) -> None:
        ended, self._ended = self._ended, []
        for tracked, reason in ended:
            self.reporter.finished(tracked, reason)

    def _preempted(self, request_id: str) -> None:
        tracked = self.live.by_id(request_id)
        if tracked is None or tracked.parent is not None:
            return
        self.preemptions += tracked.epoch - tracked.reported_epoch
        tracked.reported_epoch = tracked.epoch
        self.reporter.preempted(tracked)

    def _drop_orphans(self) -> None:
        self.probes.drop_orphans(lambda fork: self._forget(fork, pb.FINISH_REASON_DROPPED))

    def _record_computed(self, scheduled: dict[str, int], commands: WorkerCommands) -> list[ComputedRequest]:
        computed = []
        measures = self.reporter.measures(self.step)
        counts = self.reporter.attached and self.queries.kept is not None
        by_id = self.live.by_id
        for request_id, count in scheduled.items():
            tracked = by_id(request_id)
            if tracked is None:
                continue
            tracked.computed_in_all += count
            request = tracked.request
            if counts:
                queries = self.queries.queries_of(tracked, count)
                if queries is not None:
                    commands.queries[request_id] = queries
            computed.append(ComputedRequest(tracked, request.num_preemptions, request.num_computed_tokens))
            if (measures or tracked.parent is not None) and self._samples_and_wants_masses(tracked):
                commands.measure.add(request_id)
        return computed

    def _samples_and_wants_masses(self, tracked: TrackedRequest) -> bool:
        request = tracked.request
        if request.is_prefill_chunk:
            return False
        # asynchronous scheduling has counted the token of this very step already
        in_flight = max(0, request.num_output_placeholders - 1)
        return self.reporter.wants_masses(tracked, self.step, request.num_output_tokens + in_flight)

    def _pool_state(self) -> pb.PoolState:
        running, waiting = self._scheduler.get_request_counts()
        probes, probes_running = len(self.live.probes), self.probes.count_running()
        return pb.PoolState(
            free_blocks=self.manager.free_blocks,
            total_blocks=self.manager.total_blocks,
            waiting=waiting - (probes - probes_running),
            running=running - probes_running,
            preemptions=self.preemptions,
        )
