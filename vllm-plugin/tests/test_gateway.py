"""The whole way in real processes: openai SDK, gateway, vLLM with the plugin, policy service."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from engine import LOCKSTEP, program
from policy_service import NODE, PolicyService
from ports import free_port
from processes import Processes
from scrape import fetch, metric
from waiting import PATIENCE_S

pytestmark = pytest.mark.vllm

#: Enough for the whole answer of the program, and for its evictions when the end of the sequence is ignored.
WHOLE, LONG = 700, 1200
BUDGET_TOKENS = 192
BLOCK_SIZE = 32


class System:
    """Three processes on free ports."""

    def __init__(self, model: str, processes: Processes) -> None:
        engine_port, gateway_port, metrics_port = (free_port() for _ in "abc")
        engine_url = f"http://127.0.0.1:{engine_port}"
        self.gateway_url = f"http://127.0.0.1:{gateway_port}"
        self._metrics_url = f"http://127.0.0.1:{metrics_port}"
        self.policy = PolicyService(processes)
        command = [sys.executable, "-m", "crystal_kv_vllm.cli", "serve", model, "--served-model-name", "crystal-mini"]
        command += ["--port", str(engine_port), "--host", "127.0.0.1", "--dtype", "float32"]
        command += ["--block-size", str(BLOCK_SIZE), "--enforce-eager", "--max-model-len", "2048"]
        command += ["--num-gpu-blocks-override", "200"]
        processes.start(
            "vllm",
            command,
            VLLM_ENABLE_V1_MULTIPROCESSING="1",
            CRYSTALKV_POLICY_ADDRESS=self.policy.address,
            CRYSTALKV_METRICS_PORT=str(metrics_port),
            # without lockstep a busy machine's plans may come after the end of an answer
            **{f"CRYSTALKV_{name}": value for name, value in LOCKSTEP.items()},
        )
        processes.start(
            "gateway",
            [str(NODE), "gateway/main.ts"],
            CRYSTALKV_GATEWAY_PORT=str(gateway_port),
            CRYSTALKV_GATEWAY_BACKENDS=f'["{engine_url}"]',
        )
        self.until = processes.until
        self.until(lambda: fetch(f"{engine_url}/health") == "", "vLLM is up")
        self.until(lambda: "crystal-mini" in fetch(f"{self.gateway_url}/v1/models"), "the gateway is up")

    def metric(self, name: str) -> float:
        return metric(self._metrics_url, name)

    @property
    def evicted(self) -> float:
        """Blocks that the plugin evicted so far."""
        return self.metric("blocks_evicted_total")

    def attached(self) -> bool:
        return self.metric("stream_up") == 1


@pytest.fixture(scope="module")
def system(model: str, processes: Processes) -> System:
    return System(model, processes)


@pytest.fixture(autouse=True)
def attached(system: System) -> None:
    """Also after a test that failed half-way."""
    system.policy.revive()
    system.until(system.attached, "the plugin is attached")


@dataclass(frozen=True)
class Answer:
    text: str
    finish_reason: str | None


def stream(
    system: System,
    tokens: int,
    mode: str = "enforce",
    once_evicted: Callable[[], None] | None = None,
    profile: str = "crystal",
) -> Answer:
    """What the openai SDK streams of a program's answer. LONG answers go on after their end.

    once_evicted: called while the answer is streamed, when the plugin has evicted blocks of it.
    """
    from openai import OpenAI

    client = OpenAI(base_url=f"{system.gateway_url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)
    before = system.evicted
    chunks = client.chat.completions.create(
        model="crystal-mini",
        messages=[{"role": "user", "content": program(3, 18)}],
        max_completion_tokens=tokens,
        temperature=0,
        stream=True,
        extra_body={
            "ignore_eos": tokens == LONG,
            "crystal_kv": {"profile": profile, "budget_tokens": BUDGET_TOKENS, "mode": mode},
        },
    )
    text, reason = "", None
    for number, chunk in enumerate(chunks):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        if once_evicted is not None and number % 16 == 0 and system.evicted > before:
            assert reason is None, "the answer was over before its blocks were evicted"
            once_evicted()
            once_evicted = None
    assert once_evicted is None, "nothing was evicted"
    return Answer(text, reason)


def assert_evicts(system: System, profile: str = "crystal") -> None:
    """A request with a fixed budget loses all blocks but those of its budget, and ends as it should."""
    before = system.evicted
    answer = stream(system, LONG, profile=profile)
    assert answer.text
    assert answer.finish_reason == "length"
    kept = BUDGET_TOKENS // BLOCK_SIZE
    # the last blocks may be too new when the request ends
    assert LONG // BLOCK_SIZE - kept - 4 <= system.evicted - before <= LONG // BLOCK_SIZE


def test_the_sdk_streams_a_programs_answer_through_gateway_and_plugin(system: System) -> None:
    measured, evicted = system.metric("measured_rows_total"), system.evicted
    answer = stream(system, WHOLE, mode="shadow")
    assert answer.finish_reason == "stop"
    assert "Q1" in answer.text
    assert system.metric("measured_rows_total") > measured
    assert system.evicted == evicted


def test_a_fixed_budget_evicts_and_probes_behind_the_gateway(system: System) -> None:
    probes, merges = system.metric("probes_total"), system.metric("merges_total")
    assert_evicts(system, "crystal-evict")
    assert system.metric("probes_total") > probes
    assert system.metric("merges_total") == merges


def test_a_profile_that_merges_by_keys_does_so_behind_the_gateway_and_needs_no_probes(system: System) -> None:
    probes, merges = system.metric("probes_total"), system.metric("merges_total")
    assert_evicts(system, "keydiff")
    assert system.metric("merges_total") > merges
    assert system.metric("probes_total") == probes


def test_a_policy_service_that_is_killed_after_evictions_is_no_client_error_and_the_plugin_comes_back(
    system: System,
) -> None:
    answer = stream(system, LONG, once_evicted=system.policy.kill)
    assert (answer.finish_reason, bool(answer.text)) == ("length", True)
    system.until(lambda: not system.attached(), "the plugin notices")
    evicted = system.evicted
    assert stream(system, WHOLE).finish_reason == "stop"
    assert system.evicted == evicted, "nobody decides, nothing is evicted"
    system.policy.start()
    system.until(system.attached, "the plugin is attached again")
    assert_evicts(system)


def test_a_policy_service_that_freezes_after_evictions_is_no_client_error_and_the_plugin_comes_back(
    system: System,
) -> None:
    answer = stream(system, LONG, once_evicted=system.policy.freeze)
    assert (answer.finish_reason, bool(answer.text)) == ("length", True)
    system.until(lambda: not system.attached(), "the plugin gives the frozen service up")
    evicted = system.evicted
    assert stream(system, WHOLE).finish_reason == "stop"
    assert system.evicted == evicted, "nobody decides, nothing is evicted"
    system.policy.thaw()
    system.until(system.attached, "the plugin is attached again")
    assert_evicts(system)
