"""The command `crystal-kv-vllm`."""

import sys

import pytest

from crystal_kv_vllm.cli import SCHEDULER, main, server_arguments
from crystal_kv_vllm.compat import WORKER_CLASS
from crystal_kv_vllm.settings import settings_table


def test_the_command_adds_the_classes_unless_they_are_named() -> None:
    assert server_arguments(["serve", "m", "--port", "1"]) == [
        *("--model", "m", "--port", "1", "--scheduler-cls", SCHEDULER, "--worker-cls", WORKER_CLASS)
    ]
    assert server_arguments(["serve", "m", "--worker-cls=x"])[-2:] == ["--scheduler-cls", SCHEDULER]
    with pytest.raises(SystemExit, match="usage"):
        server_arguments(["bench", "m"])


def test_it_prints_the_environment_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["crystal-kv-vllm", "settings"])
    main()
    assert capsys.readouterr().out == settings_table()
