"""The generated code is what the contract generates."""

import filecmp
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[1]


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    subprocess.run([str(PLUGIN / "generate.sh"), sys.executable, str(tmp_path)], check=True, capture_output=True)
    fresh = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert len(fresh) == 5
    _, different, missing = filecmp.cmpfiles(tmp_path, PLUGIN / "crystal_kv_vllm" / "gen", fresh, shallow=False)
    assert not different
    assert not missing


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]])
def test_the_sources_pass(command: list[str]) -> None:
    pytest.importorskip(command[0], reason=f"{command[0]} is not installed")
    done = subprocess.run([sys.executable, "-m", *command], cwd=PLUGIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
