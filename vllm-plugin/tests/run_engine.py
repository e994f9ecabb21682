"""One vLLM in a process of its own: reads a job as JSON from a file, and writes the result to it.

A job: model, plugin (0: stock vLLM), v2 (model runner V2 by the Triton interpreter), settings, engine, prompts, tokens,
keep (thinking blocks to keep, oldest evicted first; null: nothing is evicted), merge (merged instead of evicted),
attention (merges go by the attention that tokens received).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def use_runner_v2() -> None:
    """Model runner V2 on a CPU: Triton has no backend there, so its kernels are interpreted."""
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    import interpreter  # noqa: F401


def stock_tokens(job: dict[str, Any]) -> list[list[int]]:
    from engine import engine_arguments
    from vllm import LLM, SamplingParams

    llm = LLM(**engine_arguments(job["model"], **job["engine"]))
    params = SamplingParams(temperature=0.0, max_tokens=job["tokens"], ignore_eos=True, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": p} for p in job["prompts"]], params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def main() -> None:
    file = Path(sys.argv[1])
    job = json.loads(file.read_text())
    if job["v2"]:
        use_runner_v2()
    if not job["plugin"]:
        os.environ["CRYSTALKV_ENABLED"] = "0"
        file.write_text(json.dumps({"tokens": stock_tokens(job), "evicted": []}))
        return
    from engine import LOCKSTEP, RunningEngine
    from scripted_peer import ATTENTION, BY_ATTENTION, ScriptedPeer, keep_at_most

    peer = ScriptedPeer()  # type: ignore[abstract]
    if job["keep"] is not None:
        recent_tokens = int(job["settings"].get("RECENT_TOKENS", 64))
        rule = BY_ATTENTION if job["attention"] else None
        if rule is not None:
            peer.configure.statistics.CopyFrom(ATTENTION)
        peer.decide = keep_at_most(job["keep"], recent_tokens=recent_tokens, merge=job["merge"], rule=rule)
    engine = RunningEngine(job["model"], peer, {**LOCKSTEP, **job["settings"]}, **job["engine"])
    outputs = engine.generate(job["prompts"], job["tokens"])
    evicted = [sorted(history.evicted.items()) for history in peer.requests]
    engine.close()
    peer.close()
    file.write_text(json.dumps({"tokens": [output.tokens for output in outputs], "evicted": evicted}))


main()
