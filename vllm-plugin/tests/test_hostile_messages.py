"""Whatever a policy service sends, the engine core goes on: what is not valid is refused."""

import math
import random
from typing import Any

import pytest
from engine import prompt
from simulated_engine import SimulatedEngine

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.outbox import Outbox

pytestmark = pytest.mark.vllm

TOKENS = 260
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 31, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
FLOATS = (0.0, -1.0, 0.3, 1.0, 1e-45, 3e38, math.nan, math.inf, -math.inf)


class Hostile:
    """Makes messages of valid and of senseless parts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def number(self) -> int:
        return self.rng.choice(NUMBERS)

    def blocks(self) -> list[int]:
        """Often some that may go."""
        few = self.rng.randrange(5)
        return [self.number() if self.rng.random() < 0.3 else self.rng.randrange(2, 8) for _ in range(few)]

    def rule(self) -> pb.KeepRule:
        rng = self.rng
        rule = pb.KeepRule(seed=self.number())
        for _ in range(rng.randrange(4)):
            stage = rule.stages.add(share=rng.choice(FLOATS), sampled=rng.random() < 0.5)
            for _ in range(rng.randrange(3)):
                term = stage.terms.add(weight=rng.choice(FLOATS), pool=self.number())
                # numbers that later versions may give a meaning
                term.MergeFromString(bytes([8, rng.randrange(20), 24, rng.randrange(6)]))
        return rule

    def merge(self) -> pb.Merge:
        made = pb.Merge(into=self.blocks(), rule=self.rule() if self.rng.random() < 0.7 else None)
        if self.rng.random() < 0.4:
            # of which some are carried out
            made = pb.Merge(into=[3], rule=made.rule if made.HasField("rule") else None)
        getattr(made, "from").extend([4] if self.rng.random() < 0.4 else self.blocks())
        return made

    def plan(self, engine: Any) -> pb.Plan:
        rng, hooks = self.rng, engine.hooks
        plan = pb.Plan(sequence=self.number(), based_on_step=rng.choice([0, hooks.step, self.number()]))
        for tracked in [*hooks.live.requests, *hooks.live.probes]:
            for _ in range(rng.randrange(3)):
                request = plan.requests.add(
                    handle=rng.choice([tracked.handle, tracked.handle, self.number()]),
                    epoch=rng.choice([tracked.epoch, tracked.epoch, self.number()]),
                    evict=self.blocks(),
                    probe=rng.random() < 0.3,
                    release_thinking=rng.random() < 0.3,
                    merges=[self.merge() for _ in range(rng.randrange(3))],
                )
                if rng.random() < 0.4:
                    request.shadow.CopyFrom(
                        pb.ShadowPlan(
                            begin=rng.random() < 0.5,
                            evict=self.blocks(),
                            merges=[self.merge() for _ in range(rng.randrange(3))],
                            read_share=rng.choice(FLOATS),
                        )
                    )
        return plan

    def configure(self) -> pb.Configure:
        rng = self.rng
        made = pb.Configure(
            head_groups=[self.number() for _ in range(rng.randrange(4))],
            measure_every=rng.choice([0, 1, 3, self.number()]),
            probe_tokens=rng.choice([0, 4, self.number()]),
        )
        if rng.random() < 0.7:
            made.statistics.attention_half_life_tokens = rng.choice(FLOATS)
            made.statistics.peak_half_life_tokens = rng.choice(FLOATS)
            # numbers that later versions may give a meaning
            made.statistics.MergeFromString(bytes([10, 3, *(rng.randrange(20) for _ in range(3))]))
        return made


def test_no_message_raises_in_the_scheduler(model: str) -> None:
    engine = SimulatedEngine(model, pool_blocks=40)
    hostile = Hostile(1)
    try:
        for round_ in range(5):
            engine.hooks.session.on_configure(hostile.configure(), engine.outbox)
            for number in range(3):
                engine.add(f"{round_} {number}", prompt(number, 40), TOKENS)
            while engine.scheduler.has_unfinished_requests():
                if engine.hooks.step % 4 == 0:
                    engine.hooks.session.on_plan(hostile.plan(engine))
                engine.step()
        assert engine.hooks.plans.evicted_blocks > 10
        assert engine.hooks.plans.merges > 2
        assert sum(engine.hooks.plans.rejected.values()) > 100
        assert engine.hooks.manager.free_blocks == 40
    finally:
        engine.close()


def test_a_listener_that_fails_is_attached_again() -> None:
    """A fault in what the client calls must not end its thread: nothing would ever be evicted again."""
    from scripted_peer import ScriptedPeer

    from crystal_kv_vllm.policy_client import PolicyClient

    class Failing:
        failed = 0
        attached = 0
        detached = 0

        def on_configure(self, configure: pb.Configure, outbox: Outbox) -> None:
            if self.failed == 0:
                self.failed += 1
                raise RuntimeError("a fault")
            self.attached += 1
            outbox.put(pb.AttachRequest(snapshot=pb.Snapshot()))

        def on_plan(self, plan: pb.Plan) -> None: ...

        def on_detached(self) -> None:
            self.detached += 1

    peer, listener = ScriptedPeer(), Failing()  # type: ignore[abstract]
    client = PolicyClient(peer.address, None, None, pb.Hello(), listener)
    client.start()
    try:
        peer.wait_for(peer.attached.is_set)
        assert (listener.failed, listener.attached, listener.detached) == (1, 1, 1)
    finally:
        client.close()
        peer.close()
