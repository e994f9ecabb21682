"""What the plugin knows of a request beside vLLM's own `Request`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vllm.v1.request import Request

from .gen import policy_pb2 as pb
from .output_markers import OutputMarkers
from .request_options import choice_index, request_options


@dataclass
class TrackedRequest:
    """A live request, or a fork of one that probes its answer."""

    handle: int
    request: Request
    crystalkv_id: str
    options: pb.RequestOptions
    #: The request that this one was forked from.
    parent: "TrackedRequest | None" = None
    #: The fork that probes this one's answer now.
    probe: "TrackedRequest | None" = None
    #: Of a probe: full blocks that it shares with its parent.
    shared_blocks: int = 0
    #: Its queries count in the statistics of tokens from this position on.
    counted_from: int = 0
    #: Length at which the end of thinking was complete; None while thinking.
    thinking_end: int | None = None
    #: Positions at which segments began and that were not reported yet.
    segment_starts: list[int] = field(default_factory=list)
    #: Tokens of the request that were looked at for markers.
    scanned: int = 0
    #: What it thinks is of no use to anyone once it has ended.
    release_thinking: bool = False
    #: Epoch of the shadow plans, and the blocks that would be holes by them; None: there were none.
    shadow: tuple[int, set[int]] | None = None
    #: What the policy service was last told of its epoch, phase and blocks; None: nothing yet.
    reported_state: tuple[int, ...] | None = None
    #: Its next length at which blocks come into use, fill up or leave the protected window, as told last.
    quiet_until: int = 0
    #: Preemptions that the policy service was told of.
    reported_epoch: int = 0
    #: Tokens computed for it in all.
    computed_in_all: int = 0

    @classmethod
    def of(cls, handle: int, request: Request) -> "TrackedRequest":
        params = request.sampling_params
        name, options = request_options(params.extra_args if params is not None else None)
        prompt = request.num_prompt_tokens
        return cls(handle, request, name, options, scanned=prompt, counted_from=prompt)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def epoch(self) -> int:
        """How often the cache was thrown away."""
        return self.request.num_preemptions

    @property
    def computed(self) -> int:
        """Tokens that are in the cache for certain: those of steps in flight are not yet."""
        # what was in flight when the request was preempted is counted until it arrives, and means nothing any more
        return max(0, self.request.num_computed_tokens - self.request.num_in_flight_tokens)

    @property
    def shadow_gone(self) -> set[int] | None:
        """The blocks that would be holes by the shadow plans of this epoch; None: there were none."""
        return self.shadow[1] if self.shadow is not None and self.shadow[0] == self.epoch else None

    @property
    def generated(self) -> int:
        return self.request.num_output_tokens

    @property
    def thinking(self) -> bool:
        return self.thinking_end is None

    @property
    def phase(self) -> "pb.Phase.ValueType":
        if self.parent is not None:
            return pb.PHASE_ANSWER
        if self.computed < self.request.num_prompt_tokens:
            return pb.PHASE_PREFILL
        return pb.PHASE_THINKING if self.thinking else pb.PHASE_ANSWER

    def is_quiet(self, epoch: int, computed_tokens: int) -> bool:
        """Whether there is nothing new to say of it at this length, beside its masses. Asked at every step."""
        said = self.reported_state
        return (
            said is not None
            and computed_tokens < self.quiet_until
            and not self.segment_starts
            and epoch == said[0]
            # the two phases of generated tokens; a prompt that is being computed is never quiet
            and said[1] == (pb.PHASE_THINKING if self.thinking_end is None else pb.PHASE_ANSWER)
            and self.parent is None
        )

    def scan(self, markers: OutputMarkers) -> None:
        """Looks for markers in what was generated since the last look."""
        tokens = self.request.all_token_ids
        length = self.request.num_tokens
        segments, last = markers.segments, markers.last
        for end in range(self.scanned, length):
            token = tokens[end]
            if token in segments:
                self.segment_starts.append(end + 1)
            if token in last and self.thinking and markers.ends_thinking(tokens, end + 1):
                self.thinking_end = end + 1
        self.scanned = length

    def started(self, holes: Sequence[int]) -> pb.Started:
        """How the policy service learns of it, also of a stream that begins anew."""
        self.reported_state = None
        return pb.Started(
            handle=self.handle,
            crystalkv_id=self.crystalkv_id,
            choice_index=choice_index(self.request_id),
            prompt_tokens=self.request.num_prompt_tokens,
            options=self.options,
            epoch=self.epoch,
            evicted=holes,
            parent_handle=None if self.parent is None else self.parent.handle,
            computed_tokens=self.computed,
        )
