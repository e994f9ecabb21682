"""Tells the policy service what happens, while a stream is attached; says nothing otherwise.

A step of which there is nothing to say is not reported, and of a step only the requests of which there is: between two
measurements that is what changes a decision, the filling of a block and its leaving the protected window. In lockstep
every step is reported, since a plan answers each.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .gen import policy_pb2 as pb
from .outbox import Outbox
from .tracked_request import TrackedRequest
from .worker_io import MarkedReads, Masses

#: Below gRPC's 4 MiB by a margin: a step with more mass bytes is split.
MAX_MASS_BYTES = 3 << 20


class ComputedRequest(NamedTuple):
    """A request of a step, as it was scheduled. One is made for each request of each step."""

    tracked: TrackedRequest
    epoch: int
    #: Tokens in the cache after the step.
    computed_tokens: int


class Reporter:
    def __init__(self, block_size: int, recent_tokens: int, every_step: bool) -> None:
        self._block_size = block_size
        self._recent_tokens = recent_tokens
        self._every_step = every_step
        self._pool: pb.PoolState | None = None
        self._outbox: Outbox | None = None
        self._configure = pb.Configure()
        self._acks: list[tuple[int, pb.Ack]] = []
        self._reported_step = 0
        self._dropped_before = 0

    @property
    def attached(self) -> bool:
        return self._outbox is not None

    @property
    def dropped_steps(self) -> int:
        return self._dropped_before + (0 if self._outbox is None else self._outbox.dropped_steps)

    @property
    def reported_step(self) -> int:
        """The newest step that the service was told of."""
        return self._reported_step

    @property
    def probe_tokens(self) -> int:
        """Most tokens that a probe may generate."""
        return self._configure.probe_tokens if self.attached else 0

    @property
    def head_groups(self) -> tuple[int, ...]:
        return tuple(self._configure.head_groups)

    def configure(self, configure: pb.Configure, outbox: Outbox, snapshot: Iterable[pb.Started]) -> bool:
        """A new stream begins with a snapshot. Returns whether it is a new one."""
        self._configure = configure
        if outbox is self._outbox:
            return False
        self.detach()
        self._outbox = outbox
        self._pool = None
        self._put(pb.AttachRequest(snapshot=pb.Snapshot(requests=snapshot)))
        return True

    def detach(self) -> None:
        self._dropped_before = self.dropped_steps
        self._outbox = None
        self._acks = []

    def wants_masses(self, tracked: TrackedRequest, step: int, generated: int) -> bool:
        """Whether to measure what a request attends to when it computes the token after `generated` ones.

        In lockstep the request's own tokens are counted, so that it is measured at the same ones in any company; else
        the engine's steps, so that requests are measured together, which costs less.
        """
        if not self.attached or tracked.options.mode == pb.MODE_OFF:
            return False
        if tracked.parent is not None:
            return True
        every = self._configure.measure_every
        return every > 0 and (generated if self._every_step else step) % every == 0

    def measures(self, step: int) -> bool:
        """Whether anything but probes may be measured in a step; False is certain."""
        every = self._configure.measure_every
        return self.attached and every > 0 and (self._every_step or step % every == 0)

    def started(self, started: pb.Started) -> None:
        self._put(pb.AttachRequest(started=started))

    def preempted(self, tracked: TrackedRequest) -> None:
        self._put(pb.AttachRequest(preempted=pb.Preempted(handle=tracked.handle, epoch=tracked.epoch)))

    def finished(self, tracked: TrackedRequest, reason: "pb.FinishReason.ValueType") -> None:
        finished = pb.Finished(
            handle=tracked.handle,
            reason=reason,
            generated_tokens=tracked.generated,
            probe_tokens=0 if tracked.parent is None else tracked.computed_in_all,
        )
        self._put(pb.AttachRequest(finished=finished))

    def ack(self, sequence: int, step: int, requests: Sequence[pb.RequestAck]) -> None:
        """Acknowledges a plan that was applied before `step`.

        Steps before that one may still be computing, with the blocks that are gone now: they are reported first.
        """
        self._acks.append((step, pb.Ack(plan_sequence=sequence, applied_at_step=step, requests=requests)))
        self._flush_acks()

    def step(
        self,
        step: int,
        pool: pb.PoolState,
        computed: Sequence[ComputedRequest],
        masses: Masses,
        reads: Mapping[str, MarkedReads],
    ) -> None:
        """Reports a computed step. Entries of another epoch than the request's own are left out.

        reads: of the measured requests of which tokens are marked.
        """
        self._reported_step = step
        if not self.attached:
            return
        entries: list[pb.RequestStep] = []
        size = 0
        quiet_allowed = not self._every_step
        for entry in computed:
            tracked = entry.tracked
            codes = masses.get(tracked.request_id, b"") if masses else b""
            if quiet_allowed and not codes and tracked.is_quiet(entry.epoch, entry.computed_tokens):
                continue
            if entry.epoch != tracked.epoch:
                continue
            phase = tracked.phase
            state = (entry.epoch, phase, *self._block_bounds(entry.computed_tokens))
            news = codes or tracked.segment_starts or state != tracked.reported_state
            if not (news or self._every_step):
                continue
            tracked.reported_state = state
            tracked.quiet_until = self._next_change(entry.computed_tokens)
            if entries and size + len(codes) > MAX_MASS_BYTES:
                self._put(pb.AttachRequest(step=pb.Step(step=step, pool=pool, requests=entries, more=True)))
                entries, size = [], 0
            size += len(codes)
            entries.append(
                pb.RequestStep(
                    handle=tracked.handle,
                    epoch=entry.epoch,
                    computed_tokens=entry.computed_tokens,
                    phase=phase,
                    segment_starts=tracked.segment_starts,
                    masses=codes,
                    shadow=_shadow_reads(reads.get(tracked.request_id)) if tracked.shadow_gone is not None else None,
                )
            )
            tracked.segment_starts = []
        if entries or self._every_step or pool != self._pool:
            self._pool = pool
            self._put(pb.AttachRequest(step=pb.Step(step=step, pool=pool, requests=entries)))
        self._flush_acks()

    def _block_bounds(self, tokens: int) -> tuple[int, int, int]:
        """Blocks in use, filled, and out of the protected window: a decision changes with one of them only."""
        size = self._block_size
        return -(-tokens // size), tokens // size, (tokens - self._recent_tokens) // size

    def _next_change(self, tokens: int) -> int:
        """The length at which one of these becomes another."""
        size = self._block_size
        filled = tokens // size * size + size
        in_use = tokens + 1 if tokens % size == 0 else filled + 1
        return min(filled, in_use, tokens + size - (tokens - self._recent_tokens) % size)

    def _flush_acks(self) -> None:
        while self._acks and self._acks[0][0] <= self._reported_step + 1:
            self._put(pb.AttachRequest(ack=self._acks.pop(0)[1]))

    def _put(self, message: pb.AttachRequest) -> None:
        if self._outbox is not None:
            self._outbox.put(message)


def _shadow_reads(reads: MarkedReads | None) -> pb.ShadowReads | None:
    if reads is None:
        return None
    return pb.ShadowReads(missed_mass=reads.missed_mass, regretted_tokens=reads.regretted_tokens)
