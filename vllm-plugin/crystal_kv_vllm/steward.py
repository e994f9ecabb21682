"""The plugin's side of the scheduler: who is alive, what plans say, what is reported."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

from .evict import Block, Protection
from .gen import policy_pb2 as pb
from .manager import CrystalManager
from .orders import Masses, MergeOrder, Slot, StepOrders, attach_orders
from .outbox import Outbox
from .plans import PlanApplier
from .probe_desk import ProbeDesk, ProbeOptions, SchedulerPart
from .reporter import Computed, Reporter
from .roster import Roster
from .tracked import Markers, Tracked

logger = logging.getLogger("vllm.crystal_kv")

_FINISHES = {
    RequestStatus.FINISHED_STOPPED: pb.FINISH_REASON_STOP,
    RequestStatus.FINISHED_REPETITION: pb.FINISH_REASON_STOP,
    RequestStatus.FINISHED_LENGTH_CAPPED: pb.FINISH_REASON_LENGTH,
    RequestStatus.FINISHED_IGNORED: pb.FINISH_REASON_LENGTH,
}


@dataclass(frozen=True)
class StewardOptions:
    protection: Protection
    markers: Markers
    max_model_len: int
    head_groups: int
    #: vLLM's prefix caching is on; without it there are no probes.
    prefix_caching: bool
    #: Longest wait for the plan of a step, in seconds; None: never wait.
    lockstep_timeout: float | None
    #: A policy service is expected: steps without one count as missed.
    managed: bool
    #: Bytes of a block's keys and values, on all ranks.
    block_bytes: int


class Steward:
    """Not thread-safe by itself: all is called under `lock`, also what the policy client calls."""

    def __init__(self, scheduler: SchedulerPart, manager: CrystalManager, options: StewardOptions) -> None:
        self._scheduler = scheduler
        self._manager = manager
        self._options = options
        self.lock = threading.RLock()
        self._plan_came = threading.Condition(self.lock)
        self._reporter = Reporter(
            manager.block_size, options.protection.recent_tokens, every_step=options.lockstep_timeout is not None
        )
        self._roster = Roster()
        ends = options.markers.end_of_thinking
        suffix = ends[0] if ends and options.prefix_caching else None
        self._desk = ProbeDesk(
            scheduler, manager, self._roster, self._reporter, ProbeOptions(suffix, options.max_model_len)
        )
        self._plans = PlanApplier(self, manager.block_size, options.protection)
        self._queued_plans: list[pb.Plan] = []
        self._last_planned = 0
        self._orders = StepOrders()
        self._computed: dict[int, list[Computed]] = {}
        self._ended: list[tuple[Tracked, pb.FinishReason.ValueType]] = []
        self._updating = False
        self.step = 0
        self.preemptions = 0
        self.missed_steps = 0
        self.measured_rows = 0

    # ---- what the policy client calls, on its own thread

    def on_configure(self, configure: pb.Configure, outbox: Outbox) -> None:
        with self.lock:
            if any(group >= self._options.head_groups for group in configure.head_groups):
                logger.error(
                    "the policy service asks for head group %d, the model has %d: nothing is measured",
                    max(configure.head_groups),
                    self._options.head_groups,
                )
                configure = pb.Configure(measure_every=0, probe_tokens=0)
            snapshot = [tracked.started(self._manager.holes(tracked.request_id)) for tracked in self._roster.requests]
            if self._reporter.configure(configure, outbox, snapshot):
                self._queued_plans = []
                self._last_planned = self._reporter.reported_step

    def on_plan(self, plan: pb.Plan) -> None:
        with self.lock:
            self._queued_plans.append(plan)
            self._last_planned = plan.based_on_step
            self._plan_came.notify_all()

    def on_detached(self) -> None:
        with self.lock:
            self._queued_plans = []
            self._reporter.detach()
            self._plan_came.notify_all()

    # ---- what the scheduler calls

    def added(self, request: Request) -> None:
        """A request of a client came."""
        if self._roster.by_id(request.request_id) is None:
            self._reporter.started(self._roster.add(request).started(()))

    def before_schedule(self) -> None:
        """Waits for the last step's plan where that is asked for, and applies what came."""
        self._await_plan()
        # vLLM can preempt between two steps (reset of the prefix cache), and resume at once
        self._drop_orphans()
        self._orders = StepOrders(head_groups=self._reporter.head_groups)
        plans, self._queued_plans = self._queued_plans, []
        for plan in plans:
            requests = self._plans.apply(plan)
            if requests:
                self._reporter.ack(plan.sequence, self.step + 1, requests)

    def after_schedule(self, output: SchedulerOutput) -> None:
        """Notes what was scheduled, and gives the workers their orders."""
        for request_id in output.preempted_req_ids or ():
            self._preempted(request_id)
        self._drop_orphans()
        orders = self._orders
        if output.total_num_scheduled_tokens > 0:
            self.step += 1
            orders.step = self.step
            if self._options.managed or self._reporter.attached:
                self.missed_steps += not self._reporter.attached
                self._computed[self.step] = self._note_computed(output.num_scheduled_tokens, orders)
        if orders.holes or orders.merges or orders.step:
            attach_orders(output, orders)

    def before_update(self) -> None:
        self._updating = True

    def after_update(self, step: int, masses: Masses, outputs: dict[int, EngineCoreOutputs]) -> None:
        """Reports a computed step, then who ended with it; takes what belongs to probes out of vLLM's outputs."""
        self._updating = False
        self._desk.hide(outputs)
        computed = self._computed.pop(step, [])
        for entry in computed:
            entry.tracked.scan(self._options.markers)
        if step > 0:
            self.measured_rows += len(masses)
            self._reporter.step(step, self._pool_state(), computed, masses)
        self._report_ended()
        self._drop_orphans()

    def ending(self, request: Request) -> None:
        """Takes note of a request that has ended, before vLLM frees it."""
        tracked = self._roster.by_id(request.request_id)
        if tracked is None:
            return
        if tracked.release_thinking and self._options.markers.end_of_thinking:
            # a block of prompt and thinking helps nobody either
            self._manager.release_from(request.request_id, request.num_prompt_tokens // self._manager.block_size)
        self._forget(tracked, _FINISHES.get(request.status, pb.FINISH_REASON_ABORT))

    def after_finish(self) -> None:
        """Requests were ended from outside."""
        if not self._updating:
            self._drop_orphans()

    def shared_prefix(self, request: Request) -> list[Block] | None:
        return self._desk.shared_prefix(request)

    @property
    def running_probes(self) -> int:
        """How many of vLLM's running requests are probes."""
        return sum(probe.request.status == RequestStatus.RUNNING for probe in self.live_probes)

    # ---- what applying plans needs

    def find(self, handle: int) -> Tracked | None:
        return self._roster.by_handle(handle)

    def row(self, tracked: Tracked) -> Sequence[Block]:
        return self._manager.row(tracked.request_id)

    def punch(self, tracked: Tracked, indices: Sequence[int]) -> None:
        if indices:
            self._manager.punch(tracked.request_id, indices)
            self._orders.holes.setdefault(tracked.request_id, []).extend(indices)

    def merge(self, tracked: Tracked, into: Sequence[int], from_: Sequence[int]) -> None:
        name, size = tracked.request_id, self._manager.block_size
        row = self._manager.row(name)
        named = {*into, *from_}
        full = range(-(-tracked.request.num_prompt_tokens // size), tracked.computed // size)
        beside = [index for index in full if not row[index].is_null and index not in named]
        into_slots, from_slots, beside_slots = (
            [Slot(index, row[index].block_id) for index in indices] for indices in (into, from_, beside)
        )
        self._orders.merges.setdefault(name, []).append(MergeOrder(into_slots, from_slots, beside_slots, size))
        self._manager.withdraw(name, named)
        self.punch(tracked, from_)

    def start_probe(self, tracked: Tracked) -> "pb.ProbeAnswer.ValueType":
        return self._desk.start(tracked)

    # ---- for metrics

    @property
    def attached(self) -> bool:
        return self._reporter.attached

    @property
    def plans(self) -> PlanApplier:
        return self._plans

    @property
    def dropped_steps(self) -> int:
        return self._reporter.dropped_steps

    @property
    def probes(self) -> int:
        return self._desk.started

    @property
    def probe_tokens(self) -> int:
        return self._desk.tokens

    @property
    def free_blocks(self) -> int:
        free: int = self._manager.block_pool.get_num_free_blocks()
        return free

    @property
    def total_blocks(self) -> int:
        """Without the null block, which is in the pool and never free."""
        blocks: int = self._manager.block_pool.num_gpu_blocks
        return blocks - 1

    @property
    def block_bytes(self) -> int:
        return self._options.block_bytes

    @property
    def requests(self) -> list[Tracked]:
        """Requests of clients that are alive."""
        return self._roster.requests

    @property
    def live_probes(self) -> list[Tracked]:
        return self._roster.probes

    # ----

    def _await_plan(self) -> None:
        timeout = self._options.lockstep_timeout
        if timeout is None:
            return
        deadline = time.monotonic() + timeout
        while self._reporter.attached and self._last_planned < self._reporter.reported_step:
            if not self._plan_came.wait(deadline - time.monotonic()):
                self.missed_steps += 1
                return

    def _forget(self, tracked: Tracked, reason: "pb.FinishReason.ValueType") -> None:
        self._roster.remove(tracked)
        if tracked.parent is not None:
            self._desk.tokens += tracked.computed_in_all
        self._ended.append((tracked, reason))
        if not self._updating:
            self._report_ended()

    def _report_ended(self) -> None:
        ended, self._ended = self._ended, []
        for tracked, reason in ended:
            self._reporter.finished(tracked, reason)

    def _preempted(self, request_id: str) -> None:
        tracked = self._roster.by_id(request_id)
        if tracked is None or tracked.parent is not None:
            return
        self.preemptions += tracked.epoch - tracked.reported_epoch
        tracked.reported_epoch = tracked.epoch
        self._reporter.preempted(tracked)

    def _drop_orphans(self) -> None:
        self._desk.drop_orphans(lambda fork: self._forget(fork, pb.FINISH_REASON_DROPPED))

    def _note_computed(self, scheduled: dict[str, int], orders: StepOrders) -> list[Computed]:
        computed = []
        measures = self._reporter.measures(self.step)
        for request_id, count in scheduled.items():
            tracked = self._roster.by_id(request_id)
            if tracked is None:
                continue
            tracked.computed_in_all += count
            request = tracked.request
            computed.append(Computed(tracked, request.num_preemptions, request.num_computed_tokens))
            if (measures or tracked.parent is not None) and self._samples_and_wants_masses(tracked):
                orders.measure.add(request_id)
        return computed

    def _samples_and_wants_masses(self, tracked: Tracked) -> bool:
        request = tracked.request
        if request.is_prefill_chunk:
            return False
        # asynchronous scheduling has counted the token of this very step already
        in_flight = max(0, request.num_output_placeholders - 1)
        return self._reporter.wants_masses(tracked, self.step, request.num_output_tokens + in_flight)

    def _pool_state(self) -> pb.PoolState:
        running, waiting = self._scheduler.get_request_counts()
        probes, probes_running = len(self.live_probes), self.running_probes
        return pb.PoolState(
            free_blocks=self.free_blocks,
            total_blocks=self.total_blocks,
            waiting=waiting - (probes - probes_running),
            running=running - probes_running,
            preemptions=self.preemptions,
        )
