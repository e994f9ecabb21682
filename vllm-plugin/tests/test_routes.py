"""The paths that the gateway knows, passed on or left out, are those that vLLM serves."""

import ast
import json
import subprocess
from pathlib import Path

import pytest
import vllm
from policy_service import NODE

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
ENTRYPOINTS = Path(vllm.__file__).parent / "entrypoints"
METHODS = {"get", "post", "put", "delete", "api_route", "websocket", "add_api_route"}
#: Of the gateway's own, of later versions, and of vLLM's models, which it serves by another parameter.
NOT_IN_THIS_VERSION = {"/v1/decisions", "/v1/systemone", "/v1/models/:id", "/metrics"}


def paths_of(file: Path) -> set[str]:
    """The paths that a module gives to its router."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in METHODS
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        and call.args[0].value.startswith("/")
    }


def test_every_path_of_vllm_is_passed_on_or_left_out_for_a_reason() -> None:
    files = [*ENTRYPOINTS.rglob("api_router.py"), *(ENTRYPOINTS / "serve" / "instrumentator").glob("*.py")]
    served = set().union(*(paths_of(file) for file in files)) - {"/docs", "/redoc", "/static"}
    assert "/v1/chat/completions" in served
    assert len(served) > 40
    code = (
        "const { ROUTES } = await import('./gateway/routes.ts');"
        "const { LEFT_OUT } = await import('./gateway/left-out.ts');"
        "console.log(JSON.stringify([ROUTES.map(({ path }) => path), Object.keys(LEFT_OUT)]))"
    )
    command = [str(NODE), "--input-type=module", "-e", code]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    passed, left_out = json.loads(output)
    known = {path.replace("{response_id}", ":id") for path in served}
    assert known - {*passed, *left_out} == set()
    assert {*passed, *left_out} - known - NOT_IN_THIS_VERSION == set()
    assert set(passed) & set(left_out) == set()
