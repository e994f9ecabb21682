"""Records what `/metrics` of vLLM and of the plugin say, once before and once under load, for tests without vLLM.

    scripts/vllm-env.sh   prints the Python to run this with
    PYTHON vllm-plugin/tests/record_scrape.py test/observability/recorded

Needs the TypeScript packages too: policy service and plugin are real. Takes a few minutes.
"""

import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from engine import program
from policy_service import PolicyService
from ports import free_port
from processes import ROOT, Processes
from scrape import fetch, metric
from waiting import PATIENCE_S

CLIENTS, TOKENS, BUDGET_TOKENS = 6, 420, 128


def serve(processes: Processes) -> tuple[str, str]:
    """Starts policy service and vLLM. Returns the URLs of vLLM and of the plugin's metrics."""
    port, metrics_port = free_port(), free_port()
    policy = PolicyService(processes)
    command = [sys.executable, "-m", "crystal_kv_vllm.cli", "serve", str(ROOT / "model" / "crystal-mini")]
    command += ["--served-model-name", "crystal-mini", "--port", str(port), "--host", "127.0.0.1"]
    command += ["--dtype", "float32", "--block-size", "32", "--enforce-eager", "--max-model-len", "1024"]
    # too few blocks for all clients at once: there are waiting requests and preemptions
    command += ["--num-gpu-blocks-override", "48"]
    processes.start(
        "vllm",
        command,
        CRYSTALKV_POLICY_ADDRESS=policy.address,
        CRYSTALKV_METRICS_PORT=str(metrics_port),
        CRYSTALKV_STRICT="1",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_NO_USAGE_STATS="1",
        OMP_NUM_THREADS="1",
        VLLM_CPU_OMP_THREADS_BIND="0",
    )
    url, metrics_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}"
    processes.until(lambda: fetch(f"{url}/health") == "", "vLLM is up")
    processes.until(lambda: metric(metrics_url, "stream_up") == 1, "the plugin is attached")
    return url, metrics_url


def ask(url: str, seed: int) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)
    # every third request has no budget: it gets blocks as it needs them, and there is not room for all
    budget = {"crystalkv_budget_tokens": BUDGET_TOKENS} if seed % 3 else {"crystalkv_mode": "off"}
    for _ in client.chat.completions.create(
        model="crystal-mini",
        messages=[{"role": "user", "content": program(seed, 18)}],
        max_completion_tokens=TOKENS,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True, "vllm_xargs": {"crystalkv_profile": "crystal", **budget}},
    ):
        pass


def record(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as logs:
        processes = Processes(Path(logs))
        try:
            url, metrics_url = serve(processes)
            ask(url, 1)
            for part, at in (("vllm", url), ("plugin", metrics_url)):
                (folder / f"{part}-1.prom").write_text(fetch(f"{at}/metrics"))
            with ThreadPoolExecutor(CLIENTS) as clients:
                asked: list[Future[None]] = [clients.submit(ask, url, seed) for seed in range(2, 2 + 2 * CLIENTS)]
                while sum(future.done() for future in asked) < CLIENTS:
                    time.sleep(0.5)
                for part, at in (("vllm", url), ("plugin", metrics_url)):
                    (folder / f"{part}-2.prom").write_text(fetch(f"{at}/metrics"))
                for future in asked:
                    future.result()
        except BaseException:
            for log in Path(logs).glob("*.log"):
                sys.stderr.write(f"---- {log.name}\n{log.read_text()[-4000:]}\n")
            raise
        finally:
            processes.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    record(target)
