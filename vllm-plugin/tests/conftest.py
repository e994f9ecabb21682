"""Set-up of all tests: one core, one process, and a clear word where vLLM or the model are missing."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from engine import RunningEngine
    from processes import Processes
    from scripted_peer import ScriptedPeer

# before torch is imported: with more threads than free cores, each small operation waits for the slowest of them
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"

#: Processor time of this process in one test, its fixtures left out, in seconds. The longest test takes about 250.
MAX_CPU_S = 1500

ROOT = Path(__file__).resolve().parents[2]
MODEL = Path(os.environ.get("CRYSTALKV_TEST_MODEL") or ROOT / "model" / "crystal-mini")


def missing() -> str | None:
    """Why tests on a real vLLM cannot run; None when they can."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed: run with the Python that scripts/vllm-env.sh prints"
    if not (MODEL / "model.safetensors").exists():
        return f"no model in {MODEL}: set CRYSTALKV_TEST_MODEL to crystal-mini's folder"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = missing()
    if why is not None:
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def model() -> str:
    return str(MODEL)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Processes"]:
    """For the parts in TypeScript; all of them end when the module's tests have run."""
    from policy_service import need_node
    from processes import Processes

    need_node()
    processes = Processes(tmp_path_factory.mktemp("logs"))
    try:
        yield processes
    finally:
        processes.close()


@pytest.fixture(scope="module")
def peer() -> Iterator["ScriptedPeer"]:
    from scripted_peer import ScriptedPeer

    peer = ScriptedPeer()  # type: ignore[abstract]
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def start_engine(model: str, peer: "ScriptedPeer") -> Iterator[Callable[..., "RunningEngine"]]:
    """Starts an engine that follows `peer` in lockstep; all are closed when the module's tests have run."""
    from engine import LOCKSTEP, RunningEngine

    def start(settings: dict[str, str] | None = None, **overrides: Any) -> RunningEngine:
        engine = RunningEngine(model, peer, {**LOCKSTEP, **(settings or {})}, **overrides)
        closing.callback(engine.close)
        return engine

    # each is closed, also when closing another one fails
    with ExitStack() as closing:
        yield start


@pytest.fixture(autouse=True)
def limited_computing() -> Iterator[None]:
    """Ends a test that computes for ever: by what it computed, since the clock runs on while other programs compute."""

    def end(*_: object) -> None:
        raise TimeoutError(f"the test computed for {MAX_CPU_S} s")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.fixture(autouse=True)
def clean_start(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test sees what the one before it decided or left running."""
    if "peer" in request.fixturenames:
        request.getfixturevalue("peer").reset()
    yield
    engine = request.node.funcargs.get("engine")
    if engine is not None:
        engine.abort_all()
