"""Public test tools against the gateway: a compliance suite of the OpenAI API, a fuzzer of its OpenAPI document."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def comply(url: str, api: str) -> list[tuple[str, str, list[str]]]:
    program = Path(sys.executable).parent / "llm-comply"
    command: list[str | Path] = [program, "-u", f"{url}/v1", "-k", "none", "-m", "demo"]
    result = subprocess.run(
        [*command, "--format", api, "--json"], capture_output=True, check=False, text=True, timeout=120
    )
    results = json.loads(result.stdout)["results"]
    return [(case["id"], case["status"], case.get("errors", [])) for case in results]


@pytest.mark.parametrize(("api", "passes"), [("openai-chat", True), ("anthropic", True), ("open-responses", False)])
def test_llm_comply_says_the_same_of_the_gateway_as_of_vllm(servers: dict[str, str], api: str, passes: bool) -> None:
    """vLLM itself is not all that OpenAI's schema asks for (null where it wants a value absent): nothing may be added.

    passes: the schema is not so strict that every answer of vLLM's fails it.
    """
    through = comply(servers["gateway"], api)
    assert through == comply(servers["upstream"], api)
    assert len(through) >= 8
    assert any(status == "passed" for _, status, _ in through) == passes


def test_schemathesis(gateway: str, tmp_path: Path) -> None:
    command: list[str | Path] = [Path(sys.executable).parent / "schemathesis", "run", f"{gateway}/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    result = subprocess.run(
        [
            *command,
            f"--checks={checks},unsupported_method",
            "--max-examples=10",
            "--phases=examples,coverage,fuzzing",
            "--seed=1",
            "--request-timeout=10",
            "--suppress-health-check=all",
            "--no-color",
        ],
        capture_output=True,
        cwd=tmp_path,
        check=False,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
