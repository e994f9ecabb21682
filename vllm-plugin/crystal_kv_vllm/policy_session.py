"""The policy service as the scheduler sees it: its configuration, its plans, and the wait for one in lockstep."""

import logging
import threading
import time

from .gen import policy_pb2 as pb
from .live_requests import LiveRequests
from .manager import CrystalManager
from .outbox import Outbox
from .query_plan import QueryPlan
from .reporter import Reporter

logger = logging.getLogger("vllm.crystal_kv")


class PolicySession:
    """The policy client's listener. What the client's thread and the scheduler share is touched under `lock` only."""

    def __init__(
        self,
        live: LiveRequests,
        manager: CrystalManager,
        reporter: Reporter,
        queries: QueryPlan,
        head_groups: int,
        lockstep_timeout: float | None,
    ) -> None:
        """lockstep_timeout: longest wait for the plan of a step, in seconds; None: never wait."""
        self.lock = threading.RLock()
        self._plan_came = threading.Condition(self.lock)
        self._live = live
        self._manager = manager
        self._reporter = reporter
        self._queries = queries
        self._head_groups = head_groups
        self._lockstep_timeout = lockstep_timeout
        self._plans: list[pb.Plan] = []
        self._last_planned = 0

    def on_configure(self, configure: pb.Configure, outbox: Outbox) -> None:
        with self.lock:
            if any(group >= self._head_groups for group in configure.head_groups):
                logger.error(
                    "the policy service asks for head group %d, but the model has only %d: nothing is measured",
                    max(configure.head_groups),
                    self._head_groups,
                )
                # without masses a probe says nothing; the rest of the configuration stays
                configure.ClearField("head_groups")
                configure.measure_every = configure.probe_tokens = 0
            self._queries.configure(configure)
            snapshot = [tracked.started(self._manager.holes(tracked.request_id)) for tracked in self._live.requests]
            if self._reporter.configure(configure, outbox, snapshot):
                self._plans = []
                self._last_planned = self._reporter.reported_step

    def on_plan(self, plan: pb.Plan) -> None:
        with self.lock:
            self._plans.append(plan)
            self._last_planned = plan.based_on_step
            self._plan_came.notify_all()

    def on_detached(self) -> None:
        with self.lock:
            self._plans = []
            self._reporter.detach()
            for tracked in self._live.requests:
                tracked.shadow = None
            self._plan_came.notify_all()

    def await_plan(self) -> bool:
        """In lockstep, waits for the plan of the last reported step. Returns whether it came or is not needed."""
        if self._lockstep_timeout is None:
            return True
        deadline = time.monotonic() + self._lockstep_timeout
        while self._reporter.attached and self._last_planned < self._reporter.reported_step:
            if not self._plan_came.wait(deadline - time.monotonic()):
                return False
        return True

    def take_plans(self) -> list[pb.Plan]:
        """Plans that came since the last call, in their order."""
        plans, self._plans = self._plans, []
        return plans
