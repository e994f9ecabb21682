"""What the gateway's tests know of vLLM's request classes is what the installed ones read."""

import pytest
from record_request_bodies import PATH, as_text, record

pytestmark = pytest.mark.vllm


def test_the_recorded_readings_are_those_of_this_vllm() -> None:
    records = record()
    assert sum(one["read"] is not None for one in records) > len(records) / 4, "enough of the bodies are taken"
    assert PATH.read_text() == as_text(records), "run vllm-plugin/tests/record_request_bodies.py"
