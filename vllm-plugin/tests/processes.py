"""Real processes beside the test's own."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "node_modules" / ".bin" / "node"


class Processes:
    """Processes that end together. What they say goes to a file each, `<name>.log`."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], **environment: str) -> None:
        """The environment is the test's own, but for settings of this project."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CRYSTALKV_")}
        with (self.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                list(command), cwd=ROOT, env={**kept, **environment}, stdout=log, stderr=subprocess.STDOUT
            )

    def running(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def close(self) -> None:
        for process in self._processes.values():
            # one that is frozen would not hear that it has to end
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class PolicyService:
    """The real policy service, on a port that stays the same when it is started again."""

    def __init__(self, processes: Processes, profiles: str | None = None) -> None:
        """profiles: the `profiles` section of its configuration, as YAML; None: the repository's own file."""
        self._processes = processes
        self._port, self._metrics_port = free_port(), free_port()
        self._options: list[str] = []
        if profiles is not None:
            file = processes.logs / "profiles.yaml"
            file.write_text(profiles)
            self._options = ["--config", str(file)]
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        self._processes.start(
            "policy-service",
            [str(NODE), "policy-service/main.ts", *self._options],
            CRYSTALKV_POLICY_SERVICE_PORT=str(self._port),
            CRYSTALKV_POLICY_SERVICE_METRICS_PORT=str(self._metrics_port),
            # every step, whatever memory is like: runs are compared
            CRYSTALKV_POLICY_SERVICE_MEASURE_EVERY="1",
            CRYSTALKV_POLICY_SERVICE_MEASURE_EVERY_IDLE="1",
        )
        until(lambda: read(f"http://127.0.0.1:{self._metrics_port}/health") != "", "the policy service is up")

    def kill(self) -> None:
        self._processes.kill("policy-service")

    def freeze(self) -> None:
        self._processes.signal("policy-service", signal.SIGSTOP)

    def thaw(self) -> None:
        self._processes.signal("policy-service", signal.SIGCONT)

    def revive(self) -> None:
        """Whatever became of it."""
        if self._processes.running("policy-service"):
            self.thaw()
        else:
            self.start()


def need_node() -> None:
    """Skips the test where the TypeScript parts cannot run."""
    if not NODE.exists():
        pytest.skip("the packages of policy service, gateway and embedded engine are not installed: run npm install")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Polls until a condition holds; a refused connection counts as not yet. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


def metric(url: str, name: str) -> float:
    """An engine's metric at `<url>/metrics`. Raises OSError when it does not answer, LookupError without the metric."""
    for line in read(f"{url}/metrics").splitlines():
        if line.startswith(f"crystalkv_engine_{name}{{"):
            return float(line.rsplit(" ", 1)[1])
    raise LookupError(f"no metric crystalkv_engine_{name} at {url}")


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
        return text
