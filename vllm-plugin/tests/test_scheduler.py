"""What the plugin does in vLLM's real schedulers, with one step and with two steps in flight; nothing is computed."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from engine import BLOCK_SIZE, prompt

from crystal_kv_vllm.gen import policy_pb2 as pb

if TYPE_CHECKING:
    from simulated_engine import SimulatedEngine

pytestmark = pytest.mark.vllm

PROMPT = prompt(7, 40)
#: The block that ends within the answer's tokens; what is generated is 17, again and again.
TOKENS = 200


@pytest.fixture
def simulate(model: str) -> Iterator[Callable[..., "SimulatedEngine"]]:
    from simulated_engine import SimulatedEngine

    made: list[SimulatedEngine] = []

    def simulate(**options: Any) -> SimulatedEngine:
        made.append(engine := SimulatedEngine(model, **options))
        engine.attach(measure_every=0, probe_tokens=4)
        return engine

    yield simulate
    for engine in made:
        engine.close()


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_requests_that_stream_their_input_are_told_of_once_and_forgotten(
    simulate: Callable[..., "SimulatedEngine"], steps_in_flight: int
) -> None:
    engine = simulate(steps_in_flight=steps_in_flight)
    for name in ("a", "b"):
        engine.add(name, PROMPT, 4, resumable=True)
        for _ in range(8):
            engine.step()
        # the next input, which has the session's id, and then the end of the input
        engine.add(name, prompt(3, 5), 4, resumable=True)
        for _ in range(8):
            engine.step()
        engine.scheduler.add_request(engine.request(name, [0], resumable=False))
        for _ in range(3):
            engine.step()
    assert not engine.scheduler.requests
    assert not engine.hooks.live.requests
    started, finished = engine.said("started"), engine.said("finished")
    assert len(started) == 2
    assert {it.handle for it in started} == {it.handle for it in finished}


def release_at_once(engine: "SimulatedEngine") -> None:
    """As a plan for the first request says."""
    plan = pb.RequestPlan(handle=1, release_thinking=True)
    engine.hooks.session.on_plan(pb.Plan(sequence=1, requests=[plan]))


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_an_answer_without_thinking_stays_in_the_prefix_cache_when_thinking_is_released(
    simulate: Callable[..., "SimulatedEngine"], steps_in_flight: int
) -> None:
    engine = simulate(steps_in_flight=steps_in_flight)
    request = engine.add("a", PROMPT, TOKENS)
    release_at_once(engine)
    engine.run_to_end()
    next_turn = [*request.all_token_ids, 5, 6, 7]
    # the last token's own keys and values were never computed
    assert engine.prefix_hit(next_turn) == (len(PROMPT) + TOKENS - 1) // BLOCK_SIZE * BLOCK_SIZE


@pytest.mark.parametrize("last", [0, 90], ids=["with the last token", "early"])
@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_thinking_that_ended_is_released(
    simulate: Callable[..., "SimulatedEngine"], steps_in_flight: int, last: int
) -> None:
    end: list[int] = []

    def next_token(request: Any) -> int:
        return end[0] if request.num_output_tokens == TOKENS - 1 - last else 17

    engine = simulate(next_token=next_token, steps_in_flight=steps_in_flight)
    end += engine.hooks.options.markers.end_of_thinking[0]
    request = engine.add("a", PROMPT, TOKENS)
    release_at_once(engine)
    engine.run_to_end()
    assert end[0] in request.output_token_ids
    assert engine.prefix_hit([*request.all_token_ids, 5, 6, 7]) == len(PROMPT) // BLOCK_SIZE * BLOCK_SIZE


def test_a_merge_by_a_rule_is_refused_since_the_plugin_follows_none(simulate: Callable[..., "SimulatedEngine"]) -> None:
    engine = simulate()
    engine.add("a", PROMPT, TOKENS)
    for _ in range(150):
        engine.step()
    merge = pb.Merge(into=[3], rule=pb.KeepRule(stages=[pb.KeepStage(share=1)]))
    getattr(merge, "from").append(4)
    engine.hooks.session.on_plan(pb.Plan(sequence=1, requests=[pb.RequestPlan(handle=1, merges=[merge])]))
    engine.step()
    (ack,) = engine.said("ack")
    (rejected,) = ack.requests[0].rejected
    assert (rejected.reason, list(rejected.blocks)) == (pb.REJECT_UNKNOWN_RULE, [3, 4])
    assert not ack.requests[0].merged
    assert engine.hooks.plans.rejected["unknown_rule"] == 2
