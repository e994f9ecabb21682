"""A preempted request starts over: with full attention, in a new epoch."""

from collections.abc import Callable

import pytest
from engine import RunningEngine, prompt
from scripted_peer import ScriptedPeer, keep_at_most

from crystal_kv_vllm.gen import policy_pb2 as pb

pytestmark = pytest.mark.vllm


def test_evicted_requests_are_preempted_and_resumed_and_stale_plans_are_rejected(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    # eight requests that end at 13 blocks each, and 40 blocks: they cannot all stay
    engine = start_engine(num_gpu_blocks_override=41, max_model_len=512)
    stale: list[pb.RequestPlan] = []
    inner = keep_at_most(5)

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        plans = inner(peer, step)
        for entry in step.requests:
            if entry.epoch > 0 and len(stale) < 3:
                late = pb.RequestPlan(handle=entry.handle, epoch=entry.epoch - 1, evict=[3])
                stale.append(late)
                plans = [plan for plan in plans if plan.handle != entry.handle] + [late]
        return plans

    peer.decide = decide
    outputs = engine.generate([prompt(seed, 33 + seed) for seed in range(8)], 380)
    assert all(len(output.tokens) == 380 for output in outputs)
    preempted = [history for history in peer.requests if history.epochs]
    assert preempted
    assert peer.pools[-1].preemptions == sum(len(history.epochs) for history in peer.requests)
    assert any(history.evicted for history in preempted), "a resumed request is evicted again, in its new epoch"
    assert stale
    assert peer.rejections()[pb.REJECT_STALE_EPOCH] == len(stale)
    assert engine.pool.get_num_free_blocks() == 40


def test_what_may_not_go_is_rejected_with_its_reason(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    engine = start_engine()
    asked: list[pb.RequestStep] = []

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        (entry,) = step.requests
        # once, at 161 tokens: 6 blocks, a prompt of 2 and a protected window of 64 tokens
        if entry.computed_tokens != 161 or asked:
            return []
        asked.append(entry)
        return [
            pb.RequestPlan(handle=entry.handle, epoch=0, evict=[0, 2, 2, 3, 5, 99]),
            pb.RequestPlan(handle=entry.handle, epoch=0, evict=[2]),
            pb.RequestPlan(handle=entry.handle + 1000, epoch=0, evict=[2]),
        ]

    peer.decide = decide
    engine.generate([prompt(1, 40)], 140)
    (ack,) = peer.acks
    first, again, unknown = ack.requests
    assert list(first.evicted) == [2]
    assert {r.reason: list(r.blocks) for r in first.rejected} == {
        pb.REJECT_PROTECTED: [0, 3, 5],
        pb.REJECT_OUT_OF_RANGE: [99],
    }
    assert [(r.reason, list(r.blocks)) for r in again.rejected] == [(pb.REJECT_NOT_RESIDENT, [2])]
    assert [(r.reason, list(r.blocks)) for r in unknown.rejected] == [(pb.REJECT_UNKNOWN_REQUEST, [])]


def test_a_request_whose_mode_is_off_is_neither_measured_nor_evicted(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    engine = start_engine()
    peer.decide = keep_at_most(1)
    engine.generate(
        [prompt(1, 40)],
        150,
        extra_args={"crystalkv_mode": "off", "crystalkv_id": "a", "crystalkv_budget_tokens": 96},
    )
    (history,) = peer.requests
    assert history.started.options == pb.RequestOptions(mode=pb.MODE_OFF, budget_tokens=96)
    assert history.started.crystalkv_id == "a"
    assert not any(entry.masses for _, entry in history.steps)
    assert set(peer.rejections()) == {pb.REJECT_DISABLED}
