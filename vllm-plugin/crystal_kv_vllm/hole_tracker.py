"""Whether any live request of a worker has holes: while none has, rows go to attention as they are."""

from collections.abc import Iterable

from vllm.v1.core.sched.output import SchedulerOutput

#: The block of the pool that is never written, and whose id marks a hole.
NULL_BLOCK = 0
#: There is one KV cache group.
GROUP = 0


class HoleTracker:
    def __init__(self) -> None:
        self._holed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._holed)

    def step(self, output: SchedulerOutput, punched: Iterable[str]) -> None:
        """Follows a step, before it is computed. `punched`: requests that get holes now."""
        # what was preempted comes back without any
        self._holed -= output.finished_req_ids
        self._holed -= output.preempted_req_ids or set()
        self._holed.update(punched)
        # a probe has its parent's holes from the beginning
        self._holed.update(new.req_id for new in output.scheduled_new_reqs if NULL_BLOCK in new.block_ids[GROUP])


#: There is one worker in a process.
hole_tracker = HoleTracker()
