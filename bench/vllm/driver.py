"""A real vLLM, offline: API process and engine core apart, as in a server, but without HTTP.

    driver.py MODEL JSON-OPTIONS-OF-vllm.LLM [CORE]

Reads one batch of requests per line on standard input, answers with one line on standard output; everything that vLLM
prints goes to standard error. The first line says that the engine is ready. Ends when standard input does.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from forced import FORCED_TOKENS, REFERENCE, REFERS, THOUGHTS

Batch = dict[str, Any]

#: What vLLM counts, in requests or tokens, and a batch reports.
COUNTERS = ("num_preemptions", "prefix_cache_queries", "prefix_cache_hits")


def pin(core: int) -> None:
    """Puts this process and all below it on one core. Called late: starting up may take all cores."""
    import psutil

    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def counter(engine: Any, name: str) -> float:
    return sum(metric.value for metric in engine.get_metrics() if metric.name == name)


def forced(request: dict[str, Any]) -> dict[str, Any]:
    it = request["forced"]
    if it is None:
        return {}
    return {FORCED_TOKENS: it["tokens"], THOUGHTS: it["thoughts"], REFERENCE: it["reference"], REFERS: it["refers"]}


def thoughts(request: dict[str, Any]) -> dict[str, Any]:
    """What the model thought of the tokens that it was forced to generate."""
    if request["forced"] is None:
        return {}
    file = Path(request["forced"]["thoughts"])
    result: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return result


def run(engine: Any, batch: Batch, number: int) -> dict[str, Any]:
    """All requests arrive at once when `concurrency` is their number; else one follows where another ended."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    queue = list(enumerate(batch["requests"]))
    answers: list[dict[str, Any] | None] = [None] * len(queue)
    queue.reverse()
    before = {name: counter(engine, f"vllm:{name}") for name in COUNTERS}
    running = 0
    started = time.perf_counter()
    while queue or running:
        while queue and running < batch["concurrency"]:
            index, request = queue.pop()
            params = SamplingParams(
                temperature=request["temperature"],
                seed=request["seed"],
                max_tokens=request["max_tokens"],
                ignore_eos=batch["ignore_eos"],
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args={**request["options"], **forced(request)} or None,
            )
            engine.add_request(f"{number}-{index}", {"prompt_token_ids": request["prompt"]}, params)
            running += 1
        for output in engine.step():
            if not output.finished:
                continue
            running -= 1
            index = int(output.request_id.split("-")[1])
            answers[index] = {
                "tokens": list(output.outputs[0].token_ids),
                "first_token_seconds": output.metrics.first_token_latency,
                "seconds": time.perf_counter() - started,
                **thoughts(batch["requests"][index]),
            }
    return {
        "seconds": time.perf_counter() - started,
        **{name: counter(engine, f"vllm:{name}") - before[name] for name in COUNTERS},
        "answers": answers,
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from vllm import LLM, __version__

    llm = LLM(model=sys.argv[1], disable_log_stats=False, **json.loads(sys.argv[2]))
    engine = llm.llm_engine
    if len(sys.argv) > 3:
        pin(int(sys.argv[3]))
    answers.write(json.dumps({"vllm": __version__}) + "\n")
    for number, line in enumerate(sys.stdin):
        batch = json.loads(line)
        if not batch["keep_cache"]:
            llm.reset_prefix_cache()
        answers.write(json.dumps(run(engine, batch, number)) + "\n")
    engine.engine_core.shutdown()


# the engine core is spawned: it imports this file again
if __name__ == "__main__":
    main()
