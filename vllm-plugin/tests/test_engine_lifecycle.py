"""What the tests' own engine owes them: an engine that failed leaves the next one alone."""

import gc

import pytest
from engine import RunningEngine, prompt

from crystal_kv_vllm.compat import NotSupportedError

pytestmark = pytest.mark.vllm


def test_an_engine_that_is_collected_late_does_not_end_the_next_one(model: str) -> None:
    first = RunningEngine(model, None, {})
    # as the traceback of a failed test does
    held = [first.llm]
    first.close()
    second = RunningEngine(model, None, {})
    try:
        held.clear()
        gc.collect()
        assert len(second.generate([prompt(1, 20)], 5)[0].tokens) == 5
    finally:
        second.close()


def test_an_engine_that_did_not_start_does_not_end_the_next_one(model: str) -> None:
    with pytest.raises(NotSupportedError) as kept:
        RunningEngine(model, None, {"STRICT": "1"}, worker_cls="auto")
    engine = RunningEngine(model, None, {"STRICT": "1"})
    try:
        del kept
        gc.collect()
        assert len(engine.generate([prompt(1, 20)], 5)[0].tokens) == 5
    finally:
        engine.close()


def test_what_a_failed_test_left_running_is_ended(model: str) -> None:
    from vllm import SamplingParams

    engine = RunningEngine(model, None, {})
    try:
        core = engine.llm.llm_engine
        for name in "ab":
            core.add_request(name, {"prompt_token_ids": prompt(1, 40)}, SamplingParams(max_tokens=500))
        core.step()
        assert engine.hooks.live.requests
        engine.abort_all()
        assert not core.has_unfinished_requests()
        assert not engine.hooks.live.requests
        assert engine.pool.get_num_free_blocks() == 199
    finally:
        engine.close()
