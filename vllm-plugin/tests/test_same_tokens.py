"""The plugin changes nothing while nothing is evicted, and both model runners agree when something is."""

from collections.abc import Callable

import pytest
from engine import RunningEngine, prompt
from scripted_peer import ATTENTION, BY_ATTENTION, ScriptedPeer, keep_at_most
from subprocess_engine import run_job

pytestmark = pytest.mark.vllm

PROMPTS = [prompt(seed, 40 + 9 * seed) for seed in range(8)]
SHORT = [prompt(1, 20), prompt(2, 27)]
SHORT_TOKENS = 56
#: Nothing newer than the tail is protected: evictions come early, since the interpreter is slow.
EAGER = {"RECENT_TOKENS": "0", "SINK_TOKENS": "0"}


def tokens_of(merge: bool) -> int:
    """A merge needs two full blocks beyond the prompt's."""
    return SHORT_TOKENS + 40 if merge else SHORT_TOKENS


def test_nothing_evicted_is_token_identical_to_stock_vllm_on_runner_v1(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer, model: str
) -> None:
    stock = run_job(model, PROMPTS, 256, plugin=False)["tokens"]
    engine = start_engine()
    assert [output.tokens for output in engine.generate(PROMPTS, 256)] == stock
    assert all(
        len(history.steps) >= 256 and all(entry.masses for _, entry in history.steps) for history in peer.requests
    )


def test_nothing_evicted_is_token_identical_to_stock_vllm_on_runner_v2(model: str) -> None:
    stock = run_job(model, SHORT, 8, plugin=False, v2=True)["tokens"]
    assert run_job(model, SHORT, 8, v2=True)["tokens"] == stock


@pytest.mark.parametrize(("keep", "merge", "attention"), [(0, False, False), (1, True, False), (2, True, True)])
def test_both_runners_generate_the_same_tokens_when_blocks_go(
    start_engine: Callable[..., RunningEngine],
    peer: ScriptedPeer,
    model: str,
    keep: int,
    merge: bool,
    attention: bool,
) -> None:
    if attention:
        peer.configure.statistics.CopyFrom(ATTENTION)
    engine = start_engine(EAGER)
    rule = BY_ATTENTION if attention else None
    peer.decide = keep_at_most(keep, recent_tokens=0, merge=merge, rule=rule)
    tokens = [output.tokens for output in engine.generate(SHORT, tokens_of(merge))]
    evicted = [[list(entry) for entry in sorted(history.evicted.items())] for history in peer.requests]
    assert all(evicted)
    assert all(bool(history.merges) == merge for history in peer.requests)
    v2 = run_job(model, SHORT, tokens_of(merge), keep=keep, merge=merge, attention=attention, settings=EAGER, v2=True)
    assert v2["evicted"] == evicted
    assert v2["tokens"] == tokens
    assert peer.rejections() == {}
