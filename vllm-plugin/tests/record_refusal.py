"""Records what the plugin's `/metrics` say when it refuses what is on: here, that its worker class was not chosen.

PYTHON vllm-plugin/tests/record_refusal.py test/observability/recorded
"""

import sys
from pathlib import Path

import conftest  # one core and one process, before torch is imported
from engine import RunningEngine
from ports import free_port
from scrape import fetch

if __name__ == "__main__":
    port = free_port()
    engine = RunningEngine(str(conftest.MODEL), None, {"METRICS_PORT": str(port)}, worker_cls="auto")
    try:
        (Path(sys.argv[1]) / "plugin-refused.prom").write_text(fetch(f"http://127.0.0.1:{port}/metrics"))
    finally:
        engine.close()
