"""Starts the gateway once for all tests: in front of a replayed vLLM, and in front of the embedded engine."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

# Nothing here may reach another host, whatever a library would like to report.
os.environ.update(
    NO_PROXY="127.0.0.1", LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False", LANGCHAIN_TRACING_V2="false"
)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """The addresses that serve.ts prints."""
    process = subprocess.Popen(
        [ROOT / "node_modules/.bin/node", HERE.parent / "serve.ts"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "serve.ts ended before it served"
        yield json.loads(line)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture
def gateway(servers: dict[str, str]) -> str:
    return servers["gateway"]


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def until(check: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Polls until a condition holds; fails the test when it did not for so long."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not seen within {seconds} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def aborts(servers: dict[str, str]) -> Callable[[], int]:
    """How many requests the replayed vLLM saw break off."""
    return lambda: fetch(servers["counts"])["aborted"]


@pytest.fixture
def received(servers: dict[str, str]) -> Callable[[], int]:
    """How many requests the replayed vLLM got."""
    return lambda: fetch(servers["counts"])["received"]
