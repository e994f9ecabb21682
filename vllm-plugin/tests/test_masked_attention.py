"""Eviction is attention with the evicted keys masked, and the reported masses are that attention's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine import BLOCK_SIZE, Output, RunningEngine, prompt
from reference import Reference, visible_keys
from scripted_peer import RequestHistory, ScriptedPeer, keep_at_most

pytestmark = pytest.mark.vllm

#: (prompt tokens, thinking blocks kept), prompts that do and do not fill blocks.
CASES = [(64, 3), (75, 3), (31, 4)]


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., RunningEngine]) -> RunningEngine:
    return start_engine()


@pytest.fixture(scope="module")
def reference(model: str) -> Reference:
    return Reference(model)


def run(engine: RunningEngine, peer: ScriptedPeer, length: int, keep: int) -> tuple[list[int], Output, RequestHistory]:
    peer.reset()
    peer.decide = keep_at_most(keep, seed=length)
    tokens = prompt(length, length)
    output = engine.generate([tokens], 300, logits=True)[0]
    (history,) = peer.requests
    assert len(history.evicted) >= 4, "the case is of no use when little is evicted"
    return tokens, output, history


@pytest.mark.parametrize(("length", "keep"), CASES)
def test_logits_equal_a_forward_with_the_evicted_keys_masked(
    engine: RunningEngine, peer: ScriptedPeer, reference: Reference, length: int, keep: int
) -> None:
    tokens, output, history = run(engine, peer, length, keep)
    sequence = tokens + output.tokens
    expected = reference.forward(sequence, visible_keys(len(sequence), history, BLOCK_SIZE)).logits
    for place, got in enumerate(output.logits):
        row = torch.tensor([got[token] for token in range(len(got))])
        difference = (row - expected[len(tokens) + place - 1]).abs().max().item()
        assert difference < 1e-3, f"token {place}"
    # the check can fail: with nothing masked the logits are others
    unmasked = reference.forward(sequence, torch.ones(len(sequence), len(sequence), dtype=torch.bool).tril()).logits
    assert (unmasked - expected).abs().max().item() > 0.1


@pytest.mark.parametrize(("length", "keep"), CASES)
def test_masses_are_within_a_log_codes_step_of_the_attention(
    engine: RunningEngine, peer: ScriptedPeer, reference: Reference, length: int, keep: int
) -> None:
    tokens, output, history = run(engine, peer, length, keep)
    sequence = tokens + output.tokens
    attention = reference.forward(sequence, visible_keys(len(sequence), history, BLOCK_SIZE)).attention
    layers, heads, _, _ = attention.shape
    kv_heads = 2
    # head group by head group, mean over the query heads that share its keys
    grouped = attention.view(layers * kv_heads, heads // kv_heads, len(sequence), len(sequence)).mean(1)
    measured = 0
    for step, entry in history.steps:
        query = entry.computed_tokens - 1
        blocks = -(-entry.computed_tokens // BLOCK_SIZE)
        resident = [b for b in range(blocks) if history.evicted.get(b, step + 1) > step]
        codes = np.frombuffer(entry.masses, np.uint8).reshape(layers * kv_heads, len(resident))
        masses = torch.stack(
            [grouped[:, query, b * BLOCK_SIZE : (b + 1) * BLOCK_SIZE].sum(1) for b in resident], 1
        ).numpy()
        exact = np.minimum(31, -2 * np.log2(np.maximum(masses, 1e-30)))
        assert np.all(codes <= exact + 0.01), f"step {step}"
        assert np.all((codes > exact - 1.01) | (codes == 31)), f"step {step}"
        measured += 1
    assert measured >= 300


def test_only_the_head_groups_that_were_asked_for_are_measured_in_their_order(
    start_engine: Callable[..., RunningEngine], engine: RunningEngine, peer: ScriptedPeer
) -> None:
    tokens = prompt(3, 40)
    engine.generate([tokens], 4)
    (history,) = peer.requests
    all_groups = np.frombuffer(history.steps[-1][1].masses, np.uint8).reshape(6, -1)
    peer.reset()
    from crystal_kv_vllm.gen import policy_pb2 as pb

    engine.hooks.session.on_configure(pb.Configure(head_groups=[5, 2], measure_every=2), engine.hooks.reporter._outbox)
    try:
        engine.generate([tokens], 4)
        (history,) = peer.requests
        assert [len(entry.masses) > 0 for _, entry in history.steps] == [True, False, True, False]
        engine.hooks.session.on_configure(
            pb.Configure(head_groups=[5, 2], measure_every=1), engine.hooks.reporter._outbox
        )
        peer.reset()
        engine.generate([tokens], 4)
        (history,) = peer.requests
        some = np.frombuffer(history.steps[-1][1].masses, np.uint8).reshape(2, -1)
        assert np.array_equal(some, all_groups[[5, 2]])
    finally:
        engine.hooks.session.on_configure(peer.configure, engine.hooks.reporter._outbox)
