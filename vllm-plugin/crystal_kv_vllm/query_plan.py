"""The scheduler's part of token statistics: which queries of a step count, and which blocks they read."""

from .gen import policy_pb2 as pb
from .kept_statistics import CountedQueries, KeptStatistics
from .manager import CrystalManager
from .tracked_request import TrackedRequest


class QueryPlan:
    """Workers learn a request's row with its queries, and of it only what is new since they learned it last."""

    def __init__(self, manager: CrystalManager) -> None:
        self._manager = manager
        self._kept: KeptStatistics | None = None
        #: By request: the epoch, and how many blocks of its row workers know.
        self._known: dict[str, tuple[int, int]] = {}

    @property
    def kept(self) -> KeptStatistics | None:
        return self._kept

    @property
    def statistics(self) -> tuple["pb.Statistic.ValueType", ...]:
        return () if self._kept is None else self._kept.statistics

    def configure(self, configure: pb.Configure) -> None:
        self._kept = KeptStatistics.of(configure)
        if self._kept is None:
            self._known = {}

    def forget(self, request_id: str) -> None:
        self._known.pop(request_id, None)

    def queries_of(self, tracked: TrackedRequest, count: int) -> CountedQueries | None:
        """What counts of a request that was scheduled with `count` tokens; None: nothing of them."""
        request, size = tracked.request, self._manager.block_size
        end = request.num_computed_tokens
        if self._kept is None or tracked.options.mode == pb.MODE_OFF or end <= tracked.counted_from:
            return None
        name, now = request.request_id, request.num_preemptions
        row = self._manager.row(name)
        epoch, known = self._known.get(name, (now, 0))
        first = known if epoch == now else 0
        if first != len(row) or first == 0:
            self._known[name] = (now, len(row))
        parent = tracked.parent
        prompt = request.num_prompt_tokens if parent is None else parent.request.num_prompt_tokens
        return CountedQueries(
            start=end - count,
            count=count,
            counted_from=tracked.counted_from,
            outputs=(prompt // size, 1 << 31 if parent is None else tracked.shared_blocks),
            first_block=first,
            # mostly there is none
            blocks=tuple(0 if block.is_null else block.block_id for block in row[first:]) if first < len(row) else (),
            parent=None if parent is None else parent.request_id,
        )
