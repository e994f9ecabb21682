"""Exact answers of crystal-mini, free-running and greedy, text in and text out: `python -m train.evaluate`."""

import argparse
import json
import math
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from .data import MODEL_FOLDER, node_command

# Training uses seeds below this.
FIRST_SEED = 1_000_000
# Program lengths that are measured: those of the policies' evaluation, shorter ones, and the longest.
LINES = {"plain": (4, 8, 16, 24, 32, 40, 59), "verbose": (4, 8, 16, 24, 32, 40, 45)}
# A model that does not end may write this many tokens more than the right text has.
SPARE_TOKENS = 32


@dataclass(frozen=True)
class Result:
    """What the model wrote for one program."""

    answer_right: bool
    reasoning_right: bool
    new_tokens: int


def main() -> None:
    """Prints one JSON line per form and program length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER / "crystal-mini")
    parser.add_argument("--form", nargs="+", choices=list(LINES), default=list(LINES))
    parser.add_argument("--lines", type=int, nargs="+", help="default: those of the form in LINES")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="programs of n lines use seed + n")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--log", type=Path, help="append the lines to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(arguments.model)
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model.eval()
    measured = [(form, lines) for form in arguments.form for lines in arguments.lines or LINES[form]]
    for form, lines in measured:
        seed = arguments.seed + lines
        programs = read_programs(form, lines, arguments.programs, seed)
        start = time.monotonic()
        results = run(model, tokenizer, programs, arguments.batch)
        seconds = time.monotonic() - start
        reasoning = [program["thinkEnd"] - program["promptLength"] for program in programs]
        answers = sum(result.answer_right for result in results)
        entry = {
            "event": "evaluation",
            "form": form,
            "lines": lines,
            "programs": len(programs),
            "seed": seed,
            "answerExact": answers / len(programs),
            "answerInterval95": wilson(answers, len(programs)),
            "reasoningExact": sum(result.reasoning_right for result in results) / len(programs),
            "reasoningTokens": [min(reasoning), round(sum(reasoning) / len(reasoning), 1), max(reasoning)],
            "seconds": round(seconds, 1),
            "newTokensPerSecond": round(sum(result.new_tokens for result in results) / seconds),
            "batch": arguments.batch,
            "threads": torch.get_num_threads(),
            "transformers": transformers.__version__,
        }
        text = json.dumps(entry)
        print(text, flush=True)
        if arguments.log is not None:
            with arguments.log.open("a") as log:
                log.write(text + "\n")


def read_programs(form: str, lines: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Programs from the generator."""
    arguments = ["--lines", str(lines), "--count", str(count), "--seed", str(seed)]
    if form == "verbose":
        arguments.append("--verbose")
    output = subprocess.run(node_command(*arguments), check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


@torch.no_grad()
def run(model: Any, tokenizer: Any, programs: list[dict[str, Any]], batch: int) -> list[Result]:
    """Generates for programs of one prompt length at a time, so that nothing is padded."""
    by_length = defaultdict(list)
    for program in programs:
        by_length[program["promptLength"]].append(program)
    results = []
    for group in by_length.values():
        for first in range(0, len(group), batch):
            results += run_batch(model, tokenizer, group[first : first + batch])
    return results


def run_batch(model: Any, tokenizer: Any, programs: list[dict[str, Any]]) -> list[Result]:
    """Programs of one prompt length."""
    texts = [
        tokenizer.apply_chat_template(program["messages"], tokenize=False, add_generation_prompt=True)
        for program in programs
    ]
    prompt = tokenizer(texts, return_tensors="pt", add_special_tokens=False).input_ids
    length = prompt.shape[1]
    for row, program in zip(prompt.tolist(), programs, strict=True):
        if row != program["ids"][:length] or length != program["promptLength"]:
            raise RuntimeError("the tokenizer does not give the ids of the generator")
    limit = max(len(program["ids"]) for program in programs) - length + SPARE_TOKENS
    limit = min(limit, model.config.max_position_embeddings - length)
    output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=limit, do_sample=False)
    return [judge(tokenizer, row, program) for row, program in zip(output[:, length:].tolist(), programs, strict=True)]


def judge(tokenizer: Any, written: list[int], program: dict[str, Any]) -> Result:
    """Compares text with text; a missing or repeated `</think>` is a wrong answer."""
    end = tokenizer.eos_token_id
    written = written[: written.index(end)] if end in written else written
    text = tokenizer.decode(written)
    reasoning, _, answer = text.partition(" </think> ")
    return Result(answer == program["answer"], reasoning == program["reasoning"], len(written))


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share."""
    share = right / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return round(max(0.0, centre - half) / scale, 4), round((centre + half) / scale, 4)


if __name__ == "__main__":
    main()
