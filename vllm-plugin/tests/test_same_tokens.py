"""The plugin changes nothing while nothing is evicted, and both model runners agree when something is."""

from collections.abc import Callable

import pytest
from engine import RunningEngine, prompt
from scripted_peer import ScriptedPeer, keep_at_most
from subprocess_engine import run_job

pytestmark = pytest.mark.vllm

PROMPTS = [prompt(seed, 40 + 9 * seed) for seed in range(8)]
SHORT = [prompt(1, 20), prompt(2, 27)]
SHORT_TOKENS = 56
#: Nothing newer than the tail is protected: evictions come early, since the interpreter is slow.
EAGER = {"RECENT_TOKENS": "0", "SINK_TOKENS": "0"}


def test_nothing_evicted_is_token_identical_to_stock_vllm_on_runner_v1(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer, model: str
) -> None:
    stock = run_job(model, PROMPTS, 256, plugin=False)["tokens"]
    engine = start_engine()
    assert [output.tokens for output in engine.generate(PROMPTS, 256)] == stock
    assert all(len(life.steps) >= 256 and all(entry.masses for _, entry in life.steps) for life in peer.requests)


def test_nothing_evicted_is_token_identical_to_stock_vllm_on_runner_v2(model: str) -> None:
    stock = run_job(model, SHORT, 8, plugin=False, v2=True)["tokens"]
    assert run_job(model, SHORT, 8, v2=True)["tokens"] == stock


def test_both_runners_generate_the_same_tokens_when_blocks_are_evicted(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer, model: str
) -> None:
    engine = start_engine(EAGER)
    peer.decide = keep_at_most(0, recent_tokens=0)
    tokens = [output.tokens for output in engine.generate(SHORT, SHORT_TOKENS)]
    evicted = [[list(entry) for entry in sorted(life.evicted.items())] for life in peer.requests]
    assert all(evicted)
    v2 = run_job(model, SHORT, SHORT_TOKENS, keep=0, settings=EAGER, v2=True)
    assert v2["evicted"] == evicted
    assert v2["tokens"] == tokens
