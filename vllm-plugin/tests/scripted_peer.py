"""A policy service that does what a test tells it: real gRPC, decisions by a function."""

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc
from waiting import PATIENCE_S

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.gen.policy_pb2_grpc import KvPolicyServicer, add_KvPolicyServicer_to_server
from crystal_kv_vllm.protocol import PROTOCOL_MAX

Decide = Callable[["ScriptedPeer", pb.Step], list[pb.RequestPlan]]


def nothing(peer: "ScriptedPeer", step: pb.Step) -> list[pb.RequestPlan]:
    return []


@dataclass
class RequestHistory:
    """What the engine said of one request."""

    started: pb.Started
    steps: list[tuple[int, pb.RequestStep]] = field(default_factory=list)
    evicted: dict[int, int] = field(default_factory=dict)
    """Logical block -> step before which it became a hole."""
    merges: list[tuple[int, pb.Merge]] = field(default_factory=list)
    """Step before which it was carried out, and what."""
    finished: pb.Finished | None = None
    epochs: list[int] = field(default_factory=list)

    @property
    def probe(self) -> bool:
        return self.started.HasField("parent_handle")


class ScriptedPeer(KvPolicyServicer):
    """Answers each step of the one engine that attaches with a plan (empty where `decide` has nothing to say)."""

    def __init__(self, port: int = 0) -> None:
        self.decide: Decide = nothing
        self.configure = pb.Configure(measure_every=1, probe_tokens=8)
        self.hello: pb.Hello | None = None
        self.snapshots: list[pb.Snapshot] = []
        self.attached = threading.Event()
        self.answering = True
        self.histories: dict[int, RequestHistory] = {}
        self.acks: list[pb.Ack] = []
        self.pools: list[pb.PoolState] = []
        self._sequence = 0
        self._changed = threading.Condition()
        self._streams: list[SimpleQueue[pb.AttachResponse | None]] = []
        # the engine pings every three seconds, to find out soon when nobody is there
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
        ]
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        add_KvPolicyServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        for answers in self._streams:
            answers.put(None)
        self._server.stop(0).wait(5)

    def reset(self) -> None:
        """Forgets what was seen; the stream stays, and what still comes about earlier requests is ignored."""
        self.decide = nothing
        self.histories, self.acks, self.pools = {}, [], []

    def plan(self, requests: list[pb.RequestPlan], based_on_step: int) -> pb.AttachResponse:
        self._sequence += 1
        return pb.AttachResponse(plan=pb.Plan(sequence=self._sequence, based_on_step=based_on_step, requests=requests))

    @property
    def requests(self) -> list[RequestHistory]:
        return [history for history in self.histories.values() if not history.probe]

    @property
    def probes(self) -> list[RequestHistory]:
        return [history for history in self.histories.values() if history.probe]

    def rejections(self) -> dict[int, int]:
        """Entries that were refused, by reason; a whole entry counts 1."""
        counts: dict[int, int] = defaultdict(int)
        for ack in self.acks:
            for request in ack.requests:
                for rejected in request.rejected:
                    counts[rejected.reason] += max(1, len(rejected.blocks))
        return dict(counts)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until what was seen fulfils a condition. Raises TimeoutError when the engine says nothing more."""
        with self._changed:
            while not condition():
                # each message of the engine ends this wait
                if not self._changed.wait(PATIENCE_S):
                    raise TimeoutError("the engine did not say what was expected")

    def all_finished(self) -> bool:
        return all(history.finished is not None for history in self.histories.values())

    def Attach(self, messages: Iterator[pb.AttachRequest], context: Any) -> Iterator[pb.AttachResponse]:  # noqa: N802
        answers: SimpleQueue[pb.AttachResponse | None] = SimpleQueue()
        self._streams.append(answers)
        answers.put(pb.AttachResponse(welcome=pb.Welcome(protocol=PROTOCOL_MAX)))
        answers.put(pb.AttachResponse(configure=self.configure))

        def listen() -> None:
            try:
                for message in messages:
                    with self._changed:
                        self._receive(message, answers)
                        self._changed.notify_all()
            except grpc.RpcError:
                pass
            answers.put(None)

        threading.Thread(target=listen, daemon=True).start()
        while (answer := answers.get()) is not None:
            yield answer

    def _receive(self, message: pb.AttachRequest, answers: "SimpleQueue[pb.AttachResponse | None]") -> None:
        match message.WhichOneof("message"):
            case "hello":
                self.hello = message.hello
            case "snapshot":
                self.snapshots.append(message.snapshot)
                for started in message.snapshot.requests:
                    self.histories[started.handle] = RequestHistory(started)
                self.attached.set()
            case "started":
                self.histories[message.started.handle] = RequestHistory(message.started)
            case "finished":
                if message.finished.handle in self.histories:
                    self.histories[message.finished.handle].finished = message.finished
            case "preempted":
                if message.preempted.handle in self.histories:
                    history = self.histories[message.preempted.handle]
                    history.epochs.append(message.preempted.epoch)
                    history.evicted = {}
            case "ack":
                self.acks.append(message.ack)
                for request in message.ack.requests:
                    for block in request.evicted if request.handle in self.histories else ():
                        self.histories[request.handle].evicted[block] = message.ack.applied_at_step
                    for merge in request.merged if request.handle in self.histories else ():
                        self.histories[request.handle].merges.append((message.ack.applied_at_step, merge))
            case "step":
                step = message.step
                self.pools.append(step.pool)
                for entry in step.requests:
                    if entry.handle in self.histories:
                        self.histories[entry.handle].steps.append((step.step, entry))
                if not step.more and self.answering:
                    answers.put(self.plan(self.decide(self, step), step.step))


#: Statistics that make some difference to what a merge keeps, whatever is kept of them.
ATTENTION = pb.KeptStatistics(
    statistics=[pb.STATISTIC_ATTENTION, pb.STATISTIC_PEAK],
    attention_half_life_tokens=100,
    peak_half_life_tokens=200,
)
BY_ATTENTION = pb.KeepRule(
    stages=[
        pb.KeepStage(share=0.5, terms=[pb.KeepTerm(statistic=pb.STATISTIC_ATTENTION, weight=1)]),
        pb.KeepStage(share=1, terms=[pb.KeepTerm(statistic=pb.STATISTIC_PEAK, weight=1)]),
    ]
)


def keep_at_most(
    blocks: int,
    seed: int | None = None,
    recent_tokens: int = 64,
    merge: bool = False,
    rule: pb.KeepRule | None = None,
) -> Decide:
    """Evicts down to so many thinking blocks of each request: the oldest first, or random ones.

    merge: the tokens of all candidates go into those that are left, of which there is at least one, by this rule.
    """
    rng = random.Random(seed)

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        assert peer.hello is not None
        size = peer.hello.block_size
        plans = []
        for entry in step.requests:
            history = peer.histories[entry.handle]
            if history.probe or history.finished is not None:
                continue
            first = -(-history.started.prompt_tokens // size)
            end = max(first, (entry.computed_tokens - recent_tokens) // size)
            resident = [b for b in range(first, -(-entry.computed_tokens // size)) if b not in history.evicted]
            candidates = [b for b in resident if b < end]
            over = min(len(resident) - blocks, len(candidates) - merge)
            if over > 0:
                chosen = candidates[:over] if seed is None else sorted(rng.sample(candidates, over))
                left = [block for block in candidates if block not in chosen]
                plan = pb.RequestPlan(handle=entry.handle, epoch=entry.epoch)
                if merge:
                    plan.merges.append(merge_of(left, chosen, rule))
                else:
                    plan.evict.extend(chosen)
                plans.append(plan)
        return plans

    return decide


def merge_of(into: Iterable[int], from_: Iterable[int], rule: pb.KeepRule | None = None) -> pb.Merge:
    merge = pb.Merge(into=into, rule=rule)
    # a Python keyword is a field's name
    getattr(merge, "from").extend(from_)
    return merge
