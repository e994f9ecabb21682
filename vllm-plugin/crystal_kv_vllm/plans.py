"""Applies plans between two steps. Nothing in a plan is trusted; what was refused is counted by reason."""

from collections import Counter
from collections.abc import Sequence

from .block_changes import BlockChanges
from .evict import Block, Protection, Rejected, check_evictions, check_merge, evictable_range
from .gen import policy_pb2 as pb
from .keep_rule import read_keep_rule
from .live_requests import LiveRequests
from .protocol import REJECTS
from .query_plan import QueryPlan
from .running_probes import RunningProbes
from .tracked_request import TrackedRequest


class PlanApplier:
    def __init__(
        self,
        live: LiveRequests,
        changes: BlockChanges,
        probes: RunningProbes,
        queries: QueryPlan,
        block_size: int,
        protection: Protection,
    ) -> None:
        self._live = live
        self._changes = changes
        self._probes = probes
        self._queries = queries
        self._block_size = block_size
        self._protection = protection
        self.applied = 0
        #: Those that merges freed too.
        self.evicted_blocks = 0
        self.merges = 0
        #: Blocks that were refused, by the word of the reason.
        self.rejected: Counter[str] = Counter(dict.fromkeys(REJECTS.values(), 0))

    def apply(self, plan: pb.Plan, step: int) -> list[pb.RequestAck]:
        """Returns what to acknowledge, one entry for each of the plan's requests. `step`: the newest scheduled one."""
        self.applied += 1
        if plan.based_on_step > step:
            return [self._refuse(request, pb.REJECT_FUTURE_STEP) for request in plan.requests]
        return [self._apply_one(request) for request in plan.requests]

    def _apply_one(self, plan: pb.RequestPlan) -> pb.RequestAck:
        tracked = self._live.by_handle(plan.handle)
        if tracked is None or tracked.parent is not None:
            return self._refuse(plan, pb.REJECT_UNKNOWN_REQUEST)
        if tracked.epoch != plan.epoch:
            return self._refuse(plan, pb.REJECT_STALE_EPOCH)
        if tracked.options.mode == pb.MODE_OFF:
            return self._refuse(plan, pb.REJECT_DISABLED)
        probe_row = () if tracked.probe is None else self._changes.row(tracked.probe)
        evictable = evictable_range(
            tracked.request.num_prompt_tokens, tracked.computed, self._block_size, self._protection
        )
        check = check_evictions(plan.evict, self._changes.row(tracked), probe_row, evictable)
        self._changes.evict(tracked, check.allowed)
        merged = [merge for merge in plan.merges if self._merge(tracked, merge, evictable, check.rejected)]
        evicted = sorted([*check.allowed, *(block for merge in merged for block in getattr(merge, "from"))])
        if evicted:
            # marks say what a whole cache would have lost
            tracked.shadow = None
        shadow_evicted = []
        if plan.HasField("shadow"):
            shadow_evicted = self._shadow(tracked, plan.shadow, probe_row, evictable, check.rejected)
        tracked.release_thinking = tracked.release_thinking or plan.release_thinking
        self.evicted_blocks += len(evicted)
        for reason, blocks in check.rejected.items():
            self.rejected[REJECTS[reason]] += len(blocks)
        return pb.RequestAck(
            handle=plan.handle,
            epoch=plan.epoch,
            evicted=evicted,
            rejected=[pb.RejectedBlocks(reason=reason, blocks=blocks) for reason, blocks in check.rejected.items()],
            probe=self._probes.start(tracked) if plan.probe else pb.PROBE_ANSWER_UNSPECIFIED,
            merged=[_without_rule(merge) for merge in merged],
            shadow_evicted=shadow_evicted,
        )

    def _merge(
        self,
        tracked: TrackedRequest,
        merge: pb.Merge,
        mergeable: tuple[int, int],
        rejected: Rejected,
    ) -> bool:
        """Returns whether it was carried out; else `rejected` says what was in the way."""
        # a Python keyword is a field's name
        into, from_ = list(merge.into), list(getattr(merge, "from"))
        rule = read_keep_rule(merge, kept=self._queries.statistics)
        against = check_merge(into, from_, self._changes.row(tracked), mergeable)
        if rule is None:
            against = {pb.REJECT_UNKNOWN_RULE: sorted([*into, *from_])}
        for reason, blocks in against.items():
            rejected.setdefault(reason, []).extend(blocks)
        if rule is None or against:
            return False
        self._changes.merge(tracked, into, from_, rule)
        self.merges += 1
        return True

    def _shadow(
        self,
        tracked: TrackedRequest,
        plan: pb.ShadowPlan,
        probe_row: Sequence[Block],
        evictable: tuple[int, int],
        rejected: Rejected,
    ) -> list[int]:
        """Has marked what the plan would let go. Returns the blocks that would become holes, ascending."""
        row = self._changes.row(tracked)
        begin = plan.begin or tracked.shadow_gone is None
        gone: set[int] = set() if begin else set(tracked.shadow_gone or ())
        check = check_evictions(plan.evict, row, probe_row, evictable)
        for reason, blocks in check.rejected.items():
            rejected.setdefault(reason, []).extend(blocks)
        evicted = [block for block in check.allowed if block not in gone]
        _reject_gone(check.allowed, gone, rejected)
        fresh = list(evicted)
        gone.update(evicted)
        merges = []
        for merge in plan.merges:
            into, from_ = list(merge.into), list(getattr(merge, "from"))
            rule = read_keep_rule(merge, kept=self._queries.statistics)
            against = check_merge(into, from_, row, evictable)
            _reject_gone([*into, *from_], gone, against)
            if rule is None:
                against = {pb.REJECT_UNKNOWN_RULE: sorted([*into, *from_])}
            for reason, blocks in against.items():
                rejected.setdefault(reason, []).extend(blocks)
            if rule is None or against:
                continue
            merges.append(self._changes.merge_command(tracked, into, from_, rule, gone))
            fresh.extend(from_)
            gone.update(from_)
        tracked.shadow = (tracked.epoch, gone)
        self._changes.shadow(tracked, begin=begin, evict=evicted, merges=merges, read_share=plan.read_share)
        return sorted(fresh)

    def _refuse(self, plan: pb.RequestPlan, reason: "pb.Reject.ValueType") -> pb.RequestAck:
        asked = sum(
            len(part.evict) + sum(len(getattr(merge, "from")) for merge in part.merges) for part in (plan, plan.shadow)
        )
        self.rejected[REJECTS[reason]] += max(1, asked)
        return pb.RequestAck(handle=plan.handle, epoch=plan.epoch, rejected=[pb.RejectedBlocks(reason=reason)])


def _reject_gone(blocks: Sequence[int], gone: set[int], rejected: Rejected) -> None:
    """Of these, those that would be holes."""
    of_these = [block for block in blocks if block in gone]
    if of_these:
        rejected.setdefault(pb.REJECT_NOT_RESIDENT, []).extend(of_these)


def _without_rule(merge: pb.Merge) -> pb.Merge:
    return pb.Merge(into=merge.into, **{"from": getattr(merge, "from")})
