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
#: Kind of the values that only `Hiding` makes unknown.
LOST_VALUE = "lost-value"
GENERATOR = MODEL_FOLDER / "generate.ts"
BATCHES_AHEAD = 16
# Blocks of reasoning that are hidden, in tokens; newer tokens than these are always seen, as by a cache that evicts.
HIDDEN_BLOCKS = (8, 16, 32)
ALWAYS_SEEN = 64
# Positions stay below this, a little under the 2,048 of the position table.
POSITION_LIMIT = 1900


@dataclass(frozen=True)
class Hiding:
    """How much of the reasoning a stage hides: up to `most` of a sequence's blocks, in a `share` of the batches.

    A value that is looked up and stands only in hidden blocks gets the kind `lost_kind`; 0 carries no loss.
    """

    most: float
    share: float
    lost_kind: int

    @staticmethod
    def of(stage: dict[str, Any], kinds: list[str]) -> "Hiding":
        """What stages.json says."""
        lost_kind = kinds.index(LOST_VALUE) if stage.get("anyValueForLost", False) else 0
        return Hiding(stage["mostHidden"], stage.get("hiddenShare", 1), lost_kind)

    def applies(self, random: np.random.Generator) -> bool:
        """Draws whether a batch is one of them; nothing is drawn where there is no choice."""
        return self.most > 0 and (self.share >= 1 or random.random() < self.share)


@dataclass(frozen=True)
class Batch:
    """Sequences padded at the end with kind 0, which carries no loss.

    tokens and kinds (B, T); positions (B, T) or None for 0..T-1; visible (B, 1, T, T), query by key, or None for all
    earlier tokens.
    """

    tokens: Tensor
    kinds: Tensor
    positions: Tensor | None
    visible: Tensor | None


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
def batches(stage: dict[str, Any], seed: int, position_jumps: bool, hiding: Hiding) -> Iterator[Iterator[Batch]]:
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
                batch = make_batch(json.loads(line), random, position_jumps, hiding)
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


def make_batch(
    sequences: list[dict[str, Any]], random: np.random.Generator, position_jumps: bool, hiding: Hiding
) -> Batch:
    """Pads the sequences to one length and, if asked, spreads their positions and hides blocks of the reasoning."""
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
    visible = hide_blocks(sequences, kinds, random, hiding) if hiding.applies(random) else None
    return Batch(torch.from_numpy(tokens), torch.from_numpy(kinds), positions, visible)


def hide_blocks(
    sequences: list[dict[str, Any]], kinds: NDArray[np.int64], random: np.random.Generator, hiding: Hiding
) -> Tensor:
    """What each query may attend to when a cache has evicted blocks: (B, 1, T, T).

    Of every sequence's reasoning a random share of the blocks, up to `hiding.most`, is hidden from queries more than
    ALWAYS_SEEN tokens later. A value that is looked up and stands only in hidden blocks changes its kind, so that
    nothing teaches the model to guess it. So a missing block costs what stood in it, and nothing else.
    """
    batch, length = kinds.shape
    index = np.arange(length)
    visible = np.broadcast_to(index[None, :] <= index[:, None], (batch, length, length)).copy()
    for row, sequence in enumerate(sequences):
        block = int(random.choice(HIDDEN_BLOCKS))
        begin = int(np.argmax(kinds[row] > 0))
        first, last = -(-begin // block), len(sequence["ids"]) // block
        share = random.uniform(0, hiding.most)
        hidden = [number for number in range(first, last) if random.random() < share]
        gone = np.full(length, length)  # the first query that does not see a key
        for number in hidden:
            gone[number * block : (number + 1) * block] = (number + 1) * block + ALWAYS_SEEN
        visible[row] &= index[:, None] < gone[None, :]
        for token, *positions in sequence["lookups"]:
            if positions and not visible[row, token - 1, positions].any():
                kinds[row, token] = hiding.lost_kind
    return torch.from_numpy(visible[:, None])


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
