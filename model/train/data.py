"""Training batches, read from the program generator (`model/generate.ts --stage`).

The generator runs in a process of its own and a thread parses ahead, so that the trainer never waits for data.
"""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MODEL_FOLDER = Path(__file__).resolve().parent.parent
GENERATOR = MODEL_FOLDER / "generate.ts"
BATCHES_AHEAD = 16
# Positions stay below this, a little under the 2,048 of the position table.
POSITION_LIMIT = 1900


@dataclass(frozen=True)
class Batch:
    """Sequences padded at the end with kind 0, which carries no loss.

    tokens and kinds (B, T); positions (B, T) or None for 0..T-1.
    """

    tokens: Tensor
    kinds: Tensor
    positions: Tensor | None


def node_command(*arguments: str) -> list[str]:
    """Command line of the generator; NODE names the node binary, by default the repository's own."""
    node = os.environ.get("NODE", str(MODEL_FOLDER.parent / "node_modules" / ".bin" / "node"))
    return [node, str(GENERATOR), *arguments]


def read_vocabulary() -> tuple[list[str], list[str]]:
    """Words in the order of their ids, names of the token kinds in the order of their numbers."""
    output = subprocess.run(node_command("--vocabulary"), check=True, capture_output=True, text=True).stdout
    header = json.loads(output)
    return header["vocabulary"], header["kinds"]


@contextmanager
def batches(stage: dict[str, Any], seed: int, position_jumps: bool) -> Iterator[Iterator[Batch]]:
    """An endless stream of batches; the generator ends with the context.

    stage is the `data` object of a stage (see `StageData` in stage.ts). The same seed gives the same batches.
    """
    command = node_command("--stage", json.dumps(stage), "--seed", str(seed))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: Iterator[str] = process.stdout
        ready: queue.Queue[Batch | None] = queue.Queue(BATCHES_AHEAD)
        stop = threading.Event()
        random = np.random.default_rng(seed)

        def read() -> None:
            next(lines, None)  # the vocabulary line
            for line in lines:
                batch = make_batch(json.loads(line), random, position_jumps)
                while not stop.is_set():
                    try:
                        ready.put(batch, timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
            ready.put(None)

        def consume() -> Iterator[Batch]:
            while (batch := ready.get()) is not None:
                yield batch
            raise RuntimeError(f"the program generator ended with exit code {process.wait()}")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield consume()
        finally:
            stop.set()
            process.terminate()
            reader.join()


def make_batch(sequences: list[dict[str, list[int]]], random: np.random.Generator, position_jumps: bool) -> Batch:
    """Pads the sequences to one length and, if asked, spreads their positions."""
    length = max(len(sequence["ids"]) for sequence in sequences)
    tokens = np.zeros((len(sequences), length), np.int64)
    kinds = np.zeros((len(sequences), length), np.int64)
    steps = np.ones((len(sequences), length), np.int64)
    steps[:, 0] = 0
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence["ids"])] = sequence["ids"]
        kinds[row, : len(sequence["kinds"])] = sequence["kinds"]
        steps[row, sequence["lineStarts"]] += draw_jumps(random, len(sequence["lineStarts"]), POSITION_LIMIT - length)
    positions = torch.from_numpy(steps.cumsum(axis=1)) if position_jumps else None
    return Batch(torch.from_numpy(tokens), torch.from_numpy(kinds), positions)


def draw_jumps(random: np.random.Generator, lines: int, room: int) -> NDArray[np.int64]:
    """How many positions to skip before each line, in all less than `room`; nothing is skipped 3 times in 10.

    So that short programs teach distances of long ones.
    """
    if lines == 0 or room <= 0 or random.random() >= 0.7:
        return np.zeros(lines, np.int64)
    weights = random.random(lines) ** 3
    total = random.integers(0, room)
    jumps: NDArray[np.int64] = np.floor(weights / weights.sum() * total).astype(np.int64)
    return jumps
