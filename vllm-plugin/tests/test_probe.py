"""The answer probe: tokens of a full recomputation, no trace in the parent, the pool or vLLM's outputs."""

from collections.abc import Callable
from typing import Any

import pytest
from engine import BLOCK_SIZE, RunningEngine, prompt
from scripted_peer import Decide, ScriptedPeer, keep_at_most
from vllm import SamplingParams

from crystal_kv_vllm.gen import policy_pb2 as pb

pytestmark = pytest.mark.vllm

#: The token that ends crystal-mini's thinking.
END = "</think>"


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., RunningEngine]) -> RunningEngine:
    return start_engine(disable_log_stats=False)


def probe_once(at: int, inner: Decide | None = None) -> Decide:
    """Wishes for one probe of each request when it has so many tokens."""

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        plans = inner(peer, step) if inner is not None else []
        for entry in step.requests:
            if entry.computed_tokens == at and not peer.histories[entry.handle].probe:
                mine = next((plan for plan in plans if plan.handle == entry.handle), None)
                if mine is None:
                    mine = pb.RequestPlan(handle=entry.handle, epoch=entry.epoch)
                    plans.append(mine)
                mine.probe = True
        return plans

    return decide


def probe_answers(peer: ScriptedPeer) -> list[int]:
    return [request.probe for ack in peer.acks for request in ack.requests if request.probe]


def watch_probes(engine: RunningEngine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The vLLM requests that probes are made of, in the order of their start."""
    seen: list[Any] = []
    inner = engine.hooks._scheduler.add_request

    def add_request(request: Any) -> None:
        if request.request_id.startswith("crystal-kv-probe-"):
            seen.append(request)
        inner(request)

    monkeypatch.setattr(engine.scheduler, "add_request", add_request)
    return seen


def test_a_probe_generates_the_tokens_of_a_full_recomputation(
    engine: RunningEngine, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = prompt(4, 50)
    alone = engine.generate([tokens], 200)[0].tokens
    free = engine.pool.get_num_free_blocks()
    peer.reset()
    seen = watch_probes(engine, monkeypatch)
    peer.decide = probe_once(170)
    assert engine.generate([tokens], 200)[0].tokens == alone, "the parent is as if there had been no probe"
    assert engine.pool.get_num_free_blocks() == free
    assert probe_answers(peer) == [pb.PROBE_ANSWER_STARTED]
    (fork,) = seen
    (history,) = peer.probes
    (parent,) = peer.requests
    assert history.started.parent_handle == parent.started.handle
    assert history.started.computed_tokens == 170 // BLOCK_SIZE * BLOCK_SIZE
    assert history.finished is not None
    assert history.finished.probe_tokens == history.steps[-1][1].computed_tokens - history.started.computed_tokens
    assert all(entry.masses and entry.phase == pb.PHASE_ANSWER for _, entry in history.steps)
    end = engine.llm.get_tokenizer().encode(END, add_special_tokens=False)
    # 170 are computed, the 171st token is known
    assert list(fork.prompt_token_ids) == tokens + alone[:121] + end
    peer.reset()
    engine.scheduler.reset_prefix_cache()
    recomputed = engine.generate(
        [list(fork.prompt_token_ids)], len(fork.output_token_ids), ignore_eos=False, skip_reading_prefix_cache=True
    )
    assert list(fork.output_token_ids) == recomputed[0].tokens


def test_a_probe_of_a_request_with_holes_sees_the_same_holes(
    engine: RunningEngine, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = prompt(5, 50)
    peer.decide = keep_at_most(3)
    alone = engine.generate([tokens], 250)[0].tokens
    free = engine.pool.get_num_free_blocks()
    peer.reset()
    peer.decide = probe_once(230, keep_at_most(3))
    assert engine.generate([tokens], 250)[0].tokens == alone
    assert engine.pool.get_num_free_blocks() == free
    (history,) = peer.probes
    (parent,) = peer.requests
    holes = sorted(block for block, step in parent.evicted.items() if step <= history.steps[0][0])
    assert list(history.started.evicted) == holes
    assert holes
    resident = -(-history.steps[0][1].computed_tokens // BLOCK_SIZE) - len(holes)
    assert len(history.steps[0][1].masses) == 6 * resident


def test_a_block_shared_only_with_the_own_probe_may_leave(engine: RunningEngine, peer: ScriptedPeer) -> None:
    evict = keep_at_most(2)

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        running = any(history.finished is None for history in peer.probes)
        return evict(peer, step) if running else probe_once(200)(peer, step)

    peer.decide = decide
    engine.generate([prompt(6, 50)], 220)
    (parent,) = peer.requests
    assert parent.evicted
    assert pb.REJECT_SHARED not in peer.rejections()
    assert engine.pool.get_num_free_blocks() == 199


@pytest.mark.parametrize("how", ["ends", "is aborted", "is preempted"])
def test_a_probe_is_dropped_when_its_parent(engine: RunningEngine, peer: ScriptedPeer, how: str) -> None:
    core = engine.llm.llm_engine
    params = SamplingParams(
        temperature=0.0, max_tokens=122 if how == "ends" else 200, ignore_eos=True, detokenize=False
    )
    peer.decide = probe_once(170)
    core.add_request("parent", {"prompt_token_ids": prompt(8, 50)}, params)
    ids: set[str] = set()
    while core.has_unfinished_requests():
        ids |= {output.request_id for output in core.step()}
        if engine.hooks.live.probes and how == "is aborted":
            core.abort_request(["parent"])
        if engine.hooks.live.probes and how == "is preempted":
            engine.scheduler.reset_prefix_cache(reset_running_requests=True)
            how = "was preempted"
    peer.wait_for(lambda: bool(peer.probes) and peer.all_finished())
    (history,) = peer.probes
    assert history.finished is not None
    assert history.finished.reason == pb.FINISH_REASON_DROPPED
    assert ids <= {"parent"}
    assert not engine.hooks.live.probes
    assert engine.pool.get_num_free_blocks() == 199


def test_nothing_of_a_probe_reaches_outputs_or_vllms_metrics(engine: RunningEngine, peer: ScriptedPeer) -> None:
    def counted() -> dict[str, float]:
        names = ("prompt_tokens", "generation_tokens", "request_success", "prefix_cache_queries", "prefix_cache_hits")
        return {
            metric.name: metric.value
            for metric in engine.llm.get_metrics()
            if hasattr(metric, "value") and any(metric.name == f"vllm:{name}" for name in names)
        }

    tokens = prompt(9, 50)
    engine.scheduler.reset_prefix_cache()
    start = counted()
    engine.generate([tokens], 200)
    without = {name: value - start[name] for name, value in counted().items()}
    peer.reset()
    engine.scheduler.reset_prefix_cache()
    start = counted()
    running: list[float] = []
    inner = engine.scheduler.make_stats

    peer.decide = probe_once(170)
    core = engine.llm.llm_engine
    core.add_request(
        "one",
        {"prompt_token_ids": tokens},
        SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True, detokenize=False),
    )
    while core.has_unfinished_requests():
        assert all(output.request_id == "one" for output in core.step())
        running.append(inner().num_running_reqs)
    peer.wait_for(lambda: bool(peer.probes) and peer.all_finished())
    assert {name: value - start[name] for name, value in counted().items()} == without
    assert without
    assert max(running) == 1


def test_no_probe_where_there_is_no_room(engine: RunningEngine, peer: ScriptedPeer) -> None:
    peer.decide = probe_once(50)
    engine.generate([prompt(seed, 40) for seed in range(16)], 20)
    assert set(probe_answers(peer)) == {pb.PROBE_ANSWER_NO_ROOM}
    assert not peer.probes
