"""The scheduler for overlapping steps, in an engine that does not overlap them.

vLLM's CPU platform turns overlapping off. The subclass works all the same: it counts a token as scheduled before it is
known. What a second step in flight does to it was read, not run.
"""

from collections.abc import Callable

import pytest
from engine import RunningEngine, prompt
from scripted_peer import ScriptedPeer, keep_at_most
from test_probe import probe_answers, probe_once

from crystal_kv_vllm.gen import policy_pb2 as pb

pytestmark = pytest.mark.vllm

PROMPTS = [prompt(seed, 40 + 30 * seed) for seed in range(3)]
TOKENS = 220


def evictions_and_tokens(engine: RunningEngine, peer: ScriptedPeer) -> tuple[list[dict[int, int]], list[list[int]]]:
    peer.reset()
    peer.decide = probe_once(150, keep_at_most(3))
    outputs = engine.generate(PROMPTS, TOKENS)
    assert set(probe_answers(peer)) == {pb.PROBE_ANSWER_STARTED}
    assert all(history.finished is not None and history.finished.probe_tokens for history in peer.probes)
    return [history.evicted for history in peer.requests], [output.tokens for output in outputs]


def test_the_asynchronous_scheduler_evicts_and_probes_as_the_other(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    expected = evictions_and_tokens(start_engine(), peer)
    assert all(expected[0])
    engine = start_engine(scheduler_cls="crystal_kv_vllm.scheduler.CrystalAsyncScheduler")
    assert evictions_and_tokens(engine, peer) == expected
    assert engine.pool.get_num_free_blocks() == 199
