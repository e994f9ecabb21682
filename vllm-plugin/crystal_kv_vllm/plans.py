"""Applies plans between two steps. Nothing in a plan is trusted; what was refused is counted by reason."""

from collections import Counter

from .block_changes import BlockChanges
from .evict import Protection, RejectReason, choose, evictable_range, merge_objections
from .gen import policy_pb2 as pb
from .live_requests import LiveRequests
from .running_probes import RunningProbes
from .tracked_request import TrackedRequest

_REJECTS = {
    RejectReason.UNKNOWN_REQUEST: pb.REJECT_UNKNOWN_REQUEST,
    RejectReason.STALE_EPOCH: pb.REJECT_STALE_EPOCH,
    RejectReason.PROTECTED: pb.REJECT_PROTECTED,
    RejectReason.OUT_OF_RANGE: pb.REJECT_OUT_OF_RANGE,
    RejectReason.FUTURE_STEP: pb.REJECT_FUTURE_STEP,
    RejectReason.NOT_RESIDENT: pb.REJECT_NOT_RESIDENT,
    RejectReason.SHARED: pb.REJECT_SHARED,
    RejectReason.DISABLED: pb.REJECT_DISABLED,
    RejectReason.INVALID_MERGE: pb.REJECT_INVALID_MERGE,
}


class PlanApplier:
    def __init__(
        self,
        live: LiveRequests,
        changes: BlockChanges,
        probes: RunningProbes,
        block_size: int,
        protection: Protection,
    ) -> None:
        self._live = live
        self._changes = changes
        self._probes = probes
        self._block_size = block_size
        self._protection = protection
        self.applied = 0
        #: Those that merges freed too.
        self.evicted_blocks = 0
        self.merges = 0
        self.rejected: Counter[RejectReason] = Counter(dict.fromkeys(RejectReason, 0))

    def apply(self, plan: pb.Plan, step: int) -> list[pb.RequestAck]:
        """Returns what to acknowledge, one entry for each of the plan's requests. `step`: the newest scheduled one."""
        self.applied += 1
        if plan.based_on_step > step:
            return [self._refuse(request, RejectReason.FUTURE_STEP) for request in plan.requests]
        return [self._apply_one(request) for request in plan.requests]

    def _apply_one(self, plan: pb.RequestPlan) -> pb.RequestAck:
        tracked = self._live.by_handle(plan.handle)
        if tracked is None or tracked.parent is not None:
            return self._refuse(plan, RejectReason.UNKNOWN_REQUEST)
        if tracked.epoch != plan.epoch:
            return self._refuse(plan, RejectReason.STALE_EPOCH)
        if tracked.options.mode == pb.MODE_OFF:
            return self._refuse(plan, RejectReason.DISABLED)
        probe_row = () if tracked.probe is None else self._changes.row(tracked.probe)
        evictable = evictable_range(
            tracked.request.num_prompt_tokens, tracked.computed, self._block_size, self._protection
        )
        choice = choose(plan.evict, self._changes.row(tracked), probe_row, evictable)
        self._changes.evict(tracked, choice.evict)
        merged = [merge for merge in plan.merges if self._merge(tracked, merge, evictable, choice.rejected)]
        evicted = sorted([*choice.evict, *(block for merge in merged for block in getattr(merge, "from"))])
        tracked.release_thinking = tracked.release_thinking or plan.release_thinking
        self.evicted_blocks += len(evicted)
        for reason, blocks in choice.rejected.items():
            self.rejected[reason] += len(blocks)
        return pb.RequestAck(
            handle=plan.handle,
            epoch=plan.epoch,
            evicted=evicted,
            rejected=[
                pb.RejectedBlocks(reason=_REJECTS[reason], blocks=blocks) for reason, blocks in choice.rejected.items()
            ],
            probe=self._probes.start(tracked) if plan.probe else pb.PROBE_ANSWER_UNSPECIFIED,
            merged=merged,
        )

    def _merge(
        self,
        tracked: TrackedRequest,
        merge: pb.Merge,
        mergeable: tuple[int, int],
        rejected: dict[RejectReason, list[int]],
    ) -> bool:
        """Returns whether it was carried out; else `rejected` says what was in the way."""
        # a Python keyword is a field's name
        into, from_ = list(merge.into), list(getattr(merge, "from"))
        against = merge_objections(into, from_, self._changes.row(tracked), mergeable)
        for reason, blocks in against.items():
            rejected.setdefault(reason, []).extend(blocks)
        if against:
            return False
        self._changes.merge(tracked, into, from_)
        self.merges += 1
        return True

    def _refuse(self, plan: pb.RequestPlan, reason: RejectReason) -> pb.RequestAck:
        asked = len(plan.evict) + sum(len(getattr(merge, "from")) for merge in plan.merges)
        self.rejected[reason] += max(1, asked)
        return pb.RequestAck(
            handle=plan.handle, epoch=plan.epoch, rejected=[pb.RejectedBlocks(reason=_REJECTS[reason])]
        )
