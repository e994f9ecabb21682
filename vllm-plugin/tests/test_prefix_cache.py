"""A request with holes never reaches another one through the prefix cache."""

from collections.abc import Callable

import pytest
from engine import BLOCK_SIZE, RunningEngine, prompt
from scripted_peer import ScriptedPeer, keep_at_most
from subprocess_engine import run_job

from crystal_kv_vllm.gen import policy_pb2 as pb

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., RunningEngine]) -> RunningEngine:
    return start_engine()


def published(engine: RunningEngine) -> int:
    return len(engine.pool.cached_block_hash_to_block)


def test_a_request_publishes_nothing_after_its_first_eviction(engine: RunningEngine, peer: ScriptedPeer) -> None:
    tokens = prompt(5, 70)
    before = published(engine)
    peer.decide = keep_at_most(3)
    engine.generate([tokens], 400)
    (history,) = peer.requests
    first = min(history.evicted.values())
    computed = max(entry.computed_tokens for step, entry in history.steps if step < first)
    # full blocks before the first eviction, prompt and thinking, were exact
    assert published(engine) - before <= computed // BLOCK_SIZE
    # all the same it was more than the prompt's two: the check would see later ones
    assert len(tokens) + 400 > (published(engine) - before + 4) * BLOCK_SIZE


def test_a_second_request_still_hits_the_prompt_and_gets_stock_vllms_tokens(
    engine: RunningEngine, peer: ScriptedPeer, model: str
) -> None:
    tokens = engine.program(6, 20)
    stock = run_job(model, [tokens], 400, plugin=False)["tokens"][0]
    peer.decide = keep_at_most(2, seed=1)
    evicted = engine.generate([tokens], 400)[0].tokens
    peer.reset()
    hits = engine.scheduler.kv_cache_manager
    blocks, hit_tokens, _ = hits.get_computed_blocks(_request(tokens))
    assert hit_tokens == len(tokens) // BLOCK_SIZE * BLOCK_SIZE >= 96
    assert all(not block.is_null for block in blocks.blocks[0])
    again = engine.generate([tokens], 400)[0].tokens
    assert again == stock
    assert evicted != stock, "the eviction must have changed something for this to say anything"


def test_what_a_finished_request_thought_is_released_when_the_plan_says_so(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    engine = start_engine()

    def release(_: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        return [pb.RequestPlan(handle=entry.handle, release_thinking=True) for entry in step.requests]

    peer.decide = release
    tokens = engine.program(7, 8)
    output = engine.generate([tokens], 800, ignore_eos=False)[0]
    assert output.finish_reason == "stop", "it has thought and answered"
    kept = len(tokens) // BLOCK_SIZE
    released = -(-(len(tokens) + len(output.tokens) - 1) // BLOCK_SIZE) - kept
    assert published(engine) == kept
    # the next allocations take what was thought, not what is cached
    queue = engine.pool.free_block_queue.get_all_free_blocks()
    assert all(block.block_hash is None for block in queue[:released])
    assert all(block.block_hash is not None for block in queue[-kept:])


def _request(tokens: list[int]):  # type: ignore[no-untyped-def]
    from vllm import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.request import Request

    hasher = get_request_block_hasher(BLOCK_SIZE, get_hash_fn_by_name("sha256"))
    return Request("look-up", tokens, SamplingParams(), None, block_hasher=hasher)
