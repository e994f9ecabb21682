"""The command `crystal-kv-vllm`."""

import sys
from argparse import Namespace

import pytest

from crystal_kv_vllm.cli import main
from crystal_kv_vllm.compat import SCHEDULER, WORKER_CLASS
from crystal_kv_vllm.settings import settings_table


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Namespace:
    """What vLLM's `serve` is called with."""
    from vllm.entrypoints.cli.serve import ServeSubcommand

    called: list[Namespace] = []
    monkeypatch.setattr(ServeSubcommand, "cmd", staticmethod(called.append))
    monkeypatch.setattr(sys, "argv", ["crystal-kv-vllm", "serve", *arguments])
    main()
    (options,) = called
    return options


@pytest.mark.vllm
def test_serve_is_vllms_with_the_plugins_classes_as_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(monkeypatch, "m", "--port", "1", "--data-parallel-size", "8", "--headless")
    assert (options.model_tag, options.port, options.data_parallel_size, options.headless) == ("m", 1, 8, True)
    assert (options.scheduler_cls, options.worker_cls) == (SCHEDULER, WORKER_CLASS)


@pytest.mark.vllm
def test_a_class_that_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(monkeypatch, "m", "--worker_cls=x").worker_cls == "x"
    options = parsed(monkeypatch, "m", "--scheduler-cls", "y")
    assert (options.scheduler_cls, options.worker_cls) == ("y", WORKER_CLASS)


@pytest.mark.vllm
def test_options_of_several_machines_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["serve", "m", "--headless", "--api-server-count", "2"]
    monkeypatch.setattr(sys, "argv", ["crystal-kv-vllm", *arguments])
    with pytest.raises(ValueError, match="cannot be used with --headless"):
        main()


def test_settings_that_are_not_valid_end_it_before_vllm_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["crystal-kv-vllm", "serve", "m"])
    monkeypatch.setenv("CRYSTALKV_SINK_TOKENS", "-1")
    with pytest.raises(SystemExit, match="CRYSTALKV_SINK_TOKENS is '-1': an integer from 0 to 4096"):
        main()


@pytest.mark.parametrize("arguments", [[], ["serve"], ["bench", "m"], ["settings", "m"]])
def test_another_command_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["crystal-kv-vllm", *arguments])
    with pytest.raises(SystemExit, match="usage"):
        main()


def test_it_prints_the_environment_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["crystal-kv-vllm", "settings"])
    main()
    assert capsys.readouterr().out == settings_table()
