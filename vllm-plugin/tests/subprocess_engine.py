"""Runs `run_engine.py`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_job(
    model: str,
    prompts: list[list[int]],
    tokens: int,
    plugin: bool = True,
    v2: bool = False,
    keep: int | None = None,
    merge: bool = False,
    settings: dict[str, str] | None = None,
    **engine: Any,
) -> dict[str, Any]:
    job = {
        "model": model,
        "prompts": prompts,
        "tokens": tokens,
        "plugin": plugin,
        "v2": v2,
        "keep": keep,
        "merge": merge,
        "settings": settings or {},
        "engine": engine,
    }
    script = Path(__file__).with_name("run_engine.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(job), capture_output=True, text=True, timeout=280, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the engine failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
