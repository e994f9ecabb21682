"""What a test starts ends with the test run, however that ends."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MODEL
from process_tree import cpu_seconds, descendants
from processes import GuardedProcess, ProcessError, Processes, run_to_end
from waiting import until

#: A server that ignores every request to end, with a child in a session of its own that does so too.
STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:], "child"], start_new_session=True)
time.sleep(3600)
"""

#: A test run with one server. It waits for something that never comes.
RUNNER = """
import sys
from pathlib import Path
import processes, waiting
waiting.PATIENCE_S, processes.GRACE_S = float(sys.argv[2]), 0.5
started = processes.Processes(Path(sys.argv[1]))
try:
    started.start("server", sys.argv[3:])
    started.until(lambda: False, "the server is up")
finally:
    started.close()
"""


class Runner:
    """A test run in a process of its own, whose processes are found by a mark in their environment."""

    def __init__(self, logs: Path, server: list[str], patience_s: float = 3600) -> None:
        self._mark = f"TEST_RUN={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        command = [sys.executable, "-c", RUNNER, str(logs), str(patience_s), *server]
        environment = {**os.environ, name: value, "PYTHONPATH": str(Path(__file__).parent)}
        self._said = logs / "run.log"
        with self._said.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def left(self) -> list[int]:
        """Every process that has the mark, but those that have ended."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                marked = self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if marked:
                found.append(pid)
        return found

    def said(self) -> str:
        """What it said when it has ended."""
        self.process.wait()
        return self._said.read_text()

    def close(self) -> None:
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def runners() -> Iterator[list[Runner]]:
    runners: list[Runner] = []
    yield runners
    for runner in runners:
        runner.close()


@pytest.mark.parametrize(("how", "number"), [("is killed", signal.SIGKILL), ("is interrupted", signal.SIGINT)])
def test_no_process_is_left_when_the_run(
    tmp_path: Path, runners: list[Runner], how: str, number: signal.Signals
) -> None:
    runners.append(runner := Runner(tmp_path, [sys.executable, "-c", STUBBORN]))
    # the run, its guard, the server and its child
    until(lambda: len(runner.left()) == 4, "all have started")
    runner.process.send_signal(number)
    until(lambda: not runner.left(), "nothing is left")
    assert ("KeyboardInterrupt" in runner.said()) == (how == "is interrupted")


def test_no_process_is_left_when_the_start_takes_too_long(tmp_path: Path, runners: list[Runner]) -> None:
    runners.append(runner := Runner(tmp_path, [sys.executable, "-c", STUBBORN], patience_s=1))
    assert "TimeoutError: the server is up: not yet" in runner.said()
    assert not runner.left()


@pytest.mark.vllm
def test_no_process_is_left_when_the_run_is_killed_while_vllm_starts(tmp_path: Path, runners: list[Runner]) -> None:
    serve = [sys.executable, "-m", "crystal_kv_vllm.cli", "serve", str(MODEL), "--dtype", "float32"]
    runners.append(runner := Runner(tmp_path, [*serve, "--block-size", "32", "--enforce-eager"]))
    # the run, its guard, vLLM's server and its engine, which imports vLLM once more
    until(lambda: len(runner.left()) > 3, "vLLM starts its engine", lambda: int(cpu_seconds(runner.process.pid)))
    runner.process.kill()
    until(lambda: not runner.left(), "nothing is left")


def test_what_a_process_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    leaving = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
    before = descendants(os.getpid())
    code, _ = run_to_end([sys.executable, "-c", leaving, STUBBORN])
    assert code == 0
    assert descendants(os.getpid()) == before


def test_a_process_that_ignores_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processes.GRACE_S", 0.5)
    process = GuardedProcess([sys.executable, "-c", STUBBORN], tmp_path / "log", os.environ)
    until(lambda: len(descendants(process.pid)) == 1, "its child has started")
    process.signal(signal.SIGSTOP)
    process.end()
    assert process.poll() == 128 + signal.SIGKILL


def test_a_wait_ends_when_the_process_does_and_says_what_it_said(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("server", [sys.executable, "-c", "raise SystemExit('no model')"])
    with pytest.raises(ProcessError, match=r"server ended with code 1:\nno model"):
        processes.until(lambda: False, "the server is up")
    processes.close()
    with pytest.raises(ProcessError, match="nowhere cannot be started"):
        processes.start("other", ["nowhere"])


def test_a_wait_goes_on_while_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waiting.PATIENCE_S", 0.3)
    steps = iter(range(1000))
    seen: list[int] = []

    def progress() -> int:
        seen.append(next(steps))
        return seen[-1] // 2

    until(lambda: len(seen) > 12, "ten steps", progress)
    with pytest.raises(TimeoutError, match="never: not yet"):
        until(lambda: False, "never")
