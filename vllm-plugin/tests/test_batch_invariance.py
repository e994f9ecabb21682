"""What is evicted of a request does not depend on who runs beside it."""

from collections.abc import Iterator

import pytest
from engine import LOCKSTEP, RunningEngine, prompt
from policy_service import PolicyService
from processes import Processes

pytestmark = pytest.mark.vllm

TOKENS = 300

#: Every policy that looks at what was read, with the controller that gives each request a budget of its own.
PROFILES = """
profiles:
  default: { policy: full }
  h2o: { policy: h2o, controller: { type: fixed, budget_tokens: 160 } }
  crf: { policy: crf, controller: { type: fixed, budget_tokens: 160 } }
"""


@pytest.fixture(scope="module")
def engine(model: str, processes: Processes) -> Iterator[RunningEngine]:
    """Follows the real policy service in lockstep."""
    service = PolicyService(processes, PROFILES)
    settings = {**LOCKSTEP, "POLICY_ADDRESS": service.address}
    engine = RunningEngine(model, None, settings, num_gpu_blocks_override=400)
    try:
        processes.until(lambda: engine.hooks.reporter.attached, "the engine is attached")
        yield engine
    finally:
        engine.close()


def follow(engine: RunningEngine, prompts: list[list[int]], profile: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The last prompt's tokens, and its evicted blocks in their order, each with the request's length at that step."""
    from vllm import SamplingParams

    core = engine.llm.llm_engine
    for number, tokens in enumerate(prompts):
        extra = {"crystalkv_id": str(number), "crystalkv_profile": profile}
        params = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False, extra_args=extra)
        core.add_request(str(number), {"prompt_token_ids": tokens}, params)
    name = str(len(prompts) - 1)
    (wanted,) = (tracked for tracked in engine.hooks.live.requests if tracked.crystalkv_id == name)
    evicted: dict[int, int] = {}
    generated: list[int] = []
    while core.has_unfinished_requests():
        for output in core.step():
            if output.request_id == name:
                generated = list(output.outputs[0].token_ids)
        for block in engine.manager.holes(wanted.request_id):
            evicted.setdefault(block, wanted.computed)
    return generated, list(evicted.items())


@pytest.mark.parametrize("profile", ["h2o", "crf"])
def test_the_same_prompt_alone_and_among_sixteen_loses_the_same_blocks(engine: RunningEngine, profile: str) -> None:
    wanted = prompt(3, 45)
    missed = engine.hooks.missed_steps
    engine.scheduler.reset_prefix_cache()
    alone, order = follow(engine, [wanted], profile)
    assert len(alone) == TOKENS
    assert len(order) >= 4
    engine.scheduler.reset_prefix_cache()
    others = [prompt(20 + i, 30 + 7 * i) for i in range(15)]
    assert follow(engine, [*others, wanted], profile) == (alone, order)
    assert engine.hooks.missed_steps == missed
