"""The real policy service, for tests of the whole."""

import signal

import pytest
from ports import free_port
from processes import ROOT, Processes
from scrape import fetch

NODE = ROOT / "node_modules" / ".bin" / "node"


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

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self._metrics_port}"

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
        health = f"http://127.0.0.1:{self._metrics_port}/health"
        self._processes.until(lambda: fetch(health) != "", "the policy service is up")

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
