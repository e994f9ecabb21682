"""The generated code is what the contract generates."""

import filecmp
import sys
from pathlib import Path

import pytest
from processes import run_to_end

PLUGIN = Path(__file__).resolve().parents[1]


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    code, output = run_to_end([str(PLUGIN / "generate.sh"), sys.executable, str(tmp_path)])
    assert code == 0, output
    fresh = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert len(fresh) == 5
    _, different, missing = filecmp.cmpfiles(tmp_path, PLUGIN / "crystal_kv_vllm" / "gen", fresh, shallow=False)
    assert not different
    assert not missing


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]])
def test_the_sources_pass(command: list[str]) -> None:
    pytest.importorskip(command[0], reason=f"{command[0]} is not installed")
    code, output = run_to_end([sys.executable, "-m", *command], PLUGIN)
    assert code == 0, output
