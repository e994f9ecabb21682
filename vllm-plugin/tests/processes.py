"""Real processes beside the test's own. Whatever is started here ends with the test run, however that ends."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from process_tree import cpu_seconds
from waiting import until

ROOT = Path(__file__).resolve().parents[2]
GUARD = Path(__file__).with_name("guard.py")

#: How long a process may take to end when it is asked to, in seconds; then it is killed.
GRACE_S = 20.0
_LAST_CHARACTERS = 4000


class ProcessError(RuntimeError):
    """A process could not be started, or ended too early. The message holds the end of its log."""


class GuardedProcess:
    """A process and all that it starts. They end with this process, also when it is killed: see guard.py."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        """What it prints is added to `log`. Raises ProcessError when it cannot be started."""
        self.log = log
        reading, writing = os.pipe()
        guard = [sys.executable, "-S", str(GUARD), str(writing), *command]
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                guard,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                # Ctrl-C in a terminal is for the test run, which then ends its processes
                start_new_session=True,
            )
        os.close(writing)
        with os.fdopen(reading) as report:
            pid = report.readline()
        if not pid:
            self.kill()
            raise ProcessError(f"{command[0]} cannot be started:\n{self.last_words()}")
        self.pid = int(pid)

    def poll(self) -> int | None:
        """The exit code, 128 + the number of the signal that ended it; None while it runs."""
        return self._guard.poll()

    def progress(self) -> tuple[int, int]:
        """What changes while it gets on: the length of its log, and the whole seconds that it computed."""
        return self.log.stat().st_size, int(cpu_seconds(self._guard.pid))

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-_LAST_CHARACTERS:]

    def signal(self, number: signal.Signals) -> None:
        """Does nothing when it has ended."""
        if self.poll() is None:
            # its guard ends a little later
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ask_to_end(self) -> None:
        # one that is frozen would not hear it
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """By force, with all that it started. Returns when nothing of it is left."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def end(self) -> None:
        """Asks it to end; after GRACE_S ends it by force."""
        try:
            self.ask_to_end()
            self._guard.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()


class Processes:
    """Processes that end together. What they print goes to a file each, `<name>.log`."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._processes: dict[str, GuardedProcess] = {}

    def start(self, name: str, command: Sequence[str], **environment: str) -> None:
        """The environment is the test's own, but for settings of this project. Raises ProcessError."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CRYSTALKV_")}
        self._processes[name] = GuardedProcess(command, self.logs / f"{name}.log", {**kept, **environment})

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition while the processes get on.

        Raises ProcessError when one of them ends before, and TimeoutError with all their last words.
        """

        def holds() -> bool:
            self._expect_all()
            return condition()

        try:
            until(holds, what, lambda: [process.progress() for process in self._processes.values()])
        except TimeoutError as error:
            logs = "\n".join(f"---- {name}\n{process.last_words()}" for name, process in self._processes.items())
            raise TimeoutError(f"{error}\n{logs}") from error

    def running(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].signal(number)

    def kill(self, name: str) -> None:
        self._processes.pop(name).kill()

    def close(self) -> None:
        """Asks all to end at the same time, and returns when none is left."""
        try:
            for process in self._processes.values():
                process.ask_to_end()
        finally:
            while self._processes:
                self._processes.popitem()[1].end()

    def _expect_all(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ProcessError(f"{name} ended with code {process.poll()}:\n{process.last_words()}")


def run_to_end(command: Sequence[str], cwd: Path = ROOT) -> tuple[int, str]:
    """Exit code and output of a command. Raises TimeoutError when it does not get on any more."""
    with tempfile.TemporaryDirectory() as folder:
        process = GuardedProcess(command, Path(folder) / "log", os.environ, cwd)
        try:
            until(lambda: process.poll() is not None, f"the end of {command[0]}", process.progress)
            return process.poll() or 0, process.log.read_text(errors="replace")
        finally:
            process.kill()
