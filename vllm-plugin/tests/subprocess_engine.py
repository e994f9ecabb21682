"""Runs `run_engine.py`."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import run_to_end


def run_job(
    model: str,
    prompts: list[list[int]],
    tokens: int,
    plugin: bool = True,
    v2: bool = False,
    keep: int | None = None,
    merge: bool = False,
    attention: bool = False,
    settings: dict[str, str] | None = None,
    **engine: Any,
) -> dict[str, Any]:
    """Raises RuntimeError when the engine fails, TimeoutError when it does not get on any more."""
    job = {
        "model": model,
        "prompts": prompts,
        "tokens": tokens,
        "plugin": plugin,
        "v2": v2,
        "keep": keep,
        "merge": merge,
        "attention": attention,
        "settings": settings or {},
        "engine": engine,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job))
        code, output = run_to_end([sys.executable, str(Path(__file__).with_name("run_engine.py")), str(file)])
        if code != 0:
            raise RuntimeError(f"the engine failed:\n{output[-6000:]}")
        result: dict[str, Any] = json.loads(file.read_text())
    return result
