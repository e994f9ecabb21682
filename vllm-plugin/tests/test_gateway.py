"""The whole way in real processes: openai SDK, gateway, vLLM with the plugin, policy service."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import program
from processes import NODE, ROOT, free_port, read, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(280)]


class System:
    """Three processes on free ports."""

    def __init__(self, model: str, logs: Path) -> None:
        self.logs = logs
        self.policy_port, self.engine_port, self.gateway_port, self.metrics_port = (free_port() for _ in "abcd")
        self.engine_url = f"http://127.0.0.1:{self.engine_port}"
        self.gateway_url = f"http://127.0.0.1:{self.gateway_port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start_policy_service()
        command = [sys.executable, "-m", "crystal_kv_vllm.cli", "serve", model, "--served-model-name", "crystal-mini"]
        command += ["--port", str(self.engine_port), "--host", "127.0.0.1", "--dtype", "float32", "--block-size", "32"]
        command += ["--enforce-eager", "--max-model-len", "2048", "--num-gpu-blocks-override", "200"]
        self.start(
            "engine",
            command,
            VLLM_ENABLE_V1_MULTIPROCESSING="1",
            CRYSTALKV_POLICY_ADDRESS=f"127.0.0.1:{self.policy_port}",
            CRYSTALKV_METRICS_PORT=str(self.metrics_port),
            CRYSTALKV_STRICT="1",
        )
        self.start(
            "gateway",
            [str(NODE), "gateway/main.ts"],
            CRYSTALKV_GATEWAY_PORT=str(self.gateway_port),
            CRYSTALKV_GATEWAY_BACKENDS=f'["{self.engine_url}"]',
        )
        until(lambda: read(f"{self.engine_url}/health") == "", "the engine is up", 200)
        until(lambda: "crystal-mini" in read(f"{self.gateway_url}/v1/models"), "the gateway is up")

    def start(self, name: str, command: list[str], **environment: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CRYSTALKV_")}
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=ROOT, env={**kept, **environment}, stdout=log, stderr=subprocess.STDOUT
            )

    def start_policy_service(self) -> None:
        self.start(
            "policy",
            [str(NODE), "policy-service/main.ts"],
            CRYSTALKV_POLICY_SERVICE_PORT=str(self.policy_port),
            CRYSTALKV_POLICY_SERVICE_METRICS_PORT="0",
        )

    def metric(self, name: str) -> float:
        lines = read(f"http://127.0.0.1:{self.metrics_port}/metrics").splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"crystalkv_engine_{name}{{"))

    def attached(self) -> bool:
        return self.metric("stream_up") == 1

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def system(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if not NODE.exists():
        pytest.skip("the gateway's packages are not installed: run npm install")
    system = System(model, tmp_path_factory.mktemp("logs"))
    yield system
    system.close()


def stream(system: System, tokens: int, after_first: Callable[[], None] = lambda: None) -> tuple[str, str | None]:
    """The text and the reason of its end, as the openai SDK streams them."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{system.gateway_url}/v1", api_key="none", max_retries=0, timeout=120)
    chunks = client.chat.completions.create(
        model="crystal-mini",
        messages=[{"role": "user", "content": program(3, 18)}],
        max_completion_tokens=tokens,
        temperature=0,
        stream=True,
        extra_body={
            "ignore_eos": tokens > 800,
            "crystal_kv": {"budget_tokens": 4096, "mode": "shadow"},
        },
    )
    text, reason, first = "", None, True
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            if text and first:
                first = False
                after_first()
    return text, reason


def test_the_sdk_streams_a_programs_answer_through_gateway_and_plugin(system: System) -> None:
    until(system.attached, "the plugin is attached")
    measured = system.metric("measured_rows_total")
    text, reason = stream(system, 700)
    assert reason == "stop"
    assert "Q1" in text
    assert system.metric("measured_rows_total") > measured


def test_a_killed_policy_service_is_no_client_error_and_the_plugin_comes_back(system: System) -> None:
    until(system.attached, "the plugin is attached")

    def kill() -> None:
        system.processes["policy"].kill()
        system.processes["policy"].wait()

    text, reason = stream(system, 1200, kill)
    assert (reason, bool(text)) == ("length", True)
    until(lambda: not system.attached(), "the plugin notices")
    assert stream(system, 700)[1] == "stop"
    system.start_policy_service()
    until(system.attached, "the plugin is attached again")
    assert stream(system, 700)[1] == "stop"


def test_a_frozen_policy_service_is_no_client_error_and_the_plugin_comes_back(system: System) -> None:
    until(system.attached, "the plugin is attached")
    policy = system.processes["policy"]
    text, reason = stream(system, 1200, lambda: policy.send_signal(signal.SIGSTOP))
    assert (reason, bool(text)) == ("length", True)
    until(lambda: not system.attached(), "the plugin gives the frozen service up")
    policy.send_signal(signal.SIGCONT)
    until(system.attached, "the plugin is attached again")
    assert stream(system, 700)[1] == "stop"
