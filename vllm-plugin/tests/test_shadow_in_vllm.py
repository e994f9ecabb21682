"""Shadow merges change no token of vLLM's, and what they would have cost is the attention in transformers, added up."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from engine import RunningEngine, prompt
from reference import Reference
from scripted_peer import ATTENTION, BY_ATTENTION, Decide, ScriptedPeer, merge_of
from subprocess_engine import run_job
from test_probe import probe_once

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.shadow_marks import ShadowMarks

pytestmark = pytest.mark.vllm

PROMPTS = [prompt(seed, 45 + 9 * seed) for seed in range(2)]
TOKENS = 380
#: Marks are made up to this many tokens.
MARKED_UNTIL = 340
#: Less than the mean share of 256 marked tokens that get a hundredth of the attention: at least one of them is read.
READ_SHARE = 3e-5


@pytest.fixture(autouse=True)
def configured(peer: ScriptedPeer) -> Iterator[None]:
    before = peer.configure
    peer.configure = pb.Configure(measure_every=1, probe_tokens=8, statistics=ATTENTION)
    yield
    peer.configure = before


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """By request: bool [head groups, slots], as they were when workers forgot them."""
    seen: dict[str, torch.Tensor] = {}
    forget = ShadowMarks.forget

    def watched(self: ShadowMarks, request_ids: Iterable[str]) -> None:
        names = list(request_ids)
        for name in names:
            if name in self._marked:
                seen[name] = torch.cat([self.marked(name, number) for number in range(len(self.stacks))])
        forget(self, names)

    monkeypatch.setattr(ShadowMarks, "forget", watched)
    return seen


def shadow_at_most(blocks: int, otherwise: Decide) -> Decide:
    """Shadow merges down to so many full thinking blocks of each request; what `otherwise` says is really done."""
    gone: dict[int, set[int]] = {}

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        plans = {plan.handle: plan for plan in otherwise(peer, step)}
        for entry in step.requests:
            history = peer.histories[entry.handle]
            if history.probe or history.finished is not None or entry.computed_tokens > MARKED_UNTIL:
                continue
            assert peer.hello is not None
            size = peer.hello.block_size
            first = -(-history.started.prompt_tokens // size)
            lost = gone.setdefault(entry.handle, set())
            held = [block for block in range(first, (entry.computed_tokens - 64) // size) if block not in lost]
            over = len(held) - blocks
            if over <= 0:
                continue
            plan = plans.setdefault(entry.handle, pb.RequestPlan(handle=entry.handle, epoch=entry.epoch))
            plan.shadow.begin = not lost
            plan.shadow.read_share = READ_SHARE
            # the second block takes part and stays; evictions come before merges
            plan.shadow.merges.append(merge_of(held[over:], held[:over], BY_ATTENTION))
            lost.update(held[:over])
        return list(plans.values())

    return decide


def nothing(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
    return []


@pytest.mark.parametrize("probed", [False, True])
def test_shadow_merges_change_no_token_and_cost_what_the_attention_says(
    start_engine: Callable[..., RunningEngine],
    peer: ScriptedPeer,
    model: str,
    marked: dict[str, Any],
    probed: bool,
) -> None:
    engine = start_engine()
    # a merge waits for a probe: none may run when something is to be marked
    peer.decide = shadow_at_most(2, probe_once(100, nothing) if probed else nothing)
    outputs = [output.tokens for output in engine.generate(PROMPTS, TOKENS)]
    engine.generate([prompt(9, 5)], 2)
    assert outputs == run_job(model, PROMPTS, TOKENS, plugin=False)["tokens"]
    assert len(peer.probes) == (len(PROMPTS) if probed else 0)
    assert not peer.rejections()
    assert sum(len(request.shadow_evicted) for ack in peer.acks for request in ack.requests) > 4
    assert not any(history.evicted or history.merges for history in peer.requests)
    reference = Reference(model)
    kv_heads = engine.hooks.options.head_groups.kv_heads
    for number, history in enumerate(peer.requests[: len(PROMPTS)]):
        tokens = [*PROMPTS[number], *outputs[number]]
        causal = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        attention = reference.forward(tokens, causal).attention.double()
        layers, heads, length, _ = attention.shape
        groups = attention.view(layers, kv_heads, heads // kv_heads, length, length).mean(2).flatten(0, 1)
        (name,) = [name for name in marked if name.split("-")[0] == str(number)]
        marks = torch.zeros(len(groups), length, dtype=torch.bool)
        width = min(length, marked[name].shape[1])
        marks[:, :width] = marked[name][:, :width]
        assert marks.any()
        compared = 0
        for _, entry in history.steps:
            if entry.computed_tokens <= MARKED_UNTIL + 1:
                continue
            shares = groups[:, entry.computed_tokens - 1] * marks
            assert entry.shadow.missed_mass == pytest.approx(float(shares.sum(-1).mean()), abs=1e-5)
            compared += 1
        assert compared > 30
        told = [entry.shadow for _, entry in history.steps if entry.HasField("shadow")]
        assert max(reads.missed_mass for reads in told) > 0.01
        queries = torch.arange(length) < len(tokens) - 1
        read = (groups[:, queries] >= READ_SHARE).any(1) & marks
        regretted = sum(reads.regretted_tokens for reads in told)
        # a token may have been read before it was marked
        assert 0 < regretted <= int(read.sum())


def test_where_nothing_is_let_go_nothing_is_missed(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer, model: str
) -> None:
    engine = start_engine()
    peer.decide = shadow_at_most(50, nothing)
    engine.generate(PROMPTS, 120)
    assert not any(entry.HasField("shadow") for history in peer.requests for _, entry in history.steps)


def test_a_preempted_request_loses_its_marks(start_engine: Callable[..., RunningEngine], peer: ScriptedPeer) -> None:
    engine = start_engine(num_gpu_blocks_override=26, max_model_len=512)
    peer.decide = shadow_at_most(1, nothing)
    engine.generate([prompt(seed, 45 + 9 * seed) for seed in range(4)], 230)
    preempted = [history for history in peer.requests if history.epochs]
    assert preempted
    for history in preempted:
        (first, *_) = [entry for _, entry in history.steps if entry.epoch == history.epochs[0]]
        assert not first.HasField("shadow")
