"""Trains crystal-mini: `python -m train.train` in the folder `model`.

A stage depends only on the weights it starts from, its settings and the seed: every stage starts its optimisers
afresh. So `--from-stage N`, which starts from the weights saved by stage N-1, gives what an uninterrupted run gives
(up to floating-point order of the machine).
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import LOST_VALUE, MODEL_FOLDER, Batch, Hiding, batches, read_vocabulary
from .muon import Muon
from .network import Network, Shape

LOG_EVERY_STEPS = 50


def main() -> None:
    """Runs the stages of stages.json and leaves one weights file per stage."""
    parser = argparse.ArgumentParser(description="Trains crystal-mini on one thread.")
    parser.add_argument("--stages", type=Path, default=Path(__file__).with_name("stages.json"))
    parser.add_argument("--weights", type=Path, required=True, help="folder for the weights of each stage")
    parser.add_argument("--log", type=Path, default=MODEL_FOLDER / "training-log.jsonl")
    parser.add_argument("--from-stage", type=int, default=0, help="start with this stage, from saved weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    plan = json.loads(arguments.stages.read_text())
    vocabulary, kinds = read_vocabulary()
    lost = Lost(kinds.index(LOST_VALUE), [vocabulary.index(f"={digit}") for digit in range(10)])
    seed: int = plan["seed"]
    torch.manual_seed(seed)
    arguments.weights.mkdir(parents=True, exist_ok=True)
    first: int = arguments.from_stage
    if first > 0:
        network = load_network(weights_file(arguments.weights, first - 1))
    else:
        network = Network(Shape(vocabulary=plan["words"]))

    with arguments.log.open("w" if first == 0 else "a") as log:

        def write(entry: dict[str, Any]) -> None:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(progress(entry), flush=True)

        write(
            {
                "event": "start",
                "time": now(),
                "seed": seed,
                "fromStage": first,
                "parameters": sum(p.numel() for p in network.parameters()),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
        for number in range(first, len(plan["stages"])):
            stage = plan["stages"][number]
            if "words" in stage:
                torch.manual_seed(seed * 1000 + number)
                network.add_words(stage["words"])
            # A stream of its own for each stage; seeds of programs for evaluation start at 1,000,000.
            for entry in run_stage(network, plan, stage, kinds, lost, seed * 1000 + number):
                write(entry)
            torch.save(network.state_dict(), weights_file(arguments.weights, number))


def run_stage(
    network: Network, plan: dict[str, Any], stage: dict[str, Any], kinds: list[str], lost: "Lost", seed: int
) -> Iterator[dict[str, Any]]:
    """Trains for the stage's tokens; yields the entries of the log."""
    matrices = [matrix for block in network.layers() for matrix in block.matrices()]
    known = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    muon = Muon(matrices, plan["momentum"], plan["weightDecay"])
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
    weights = torch.tensor([float(plan["lossWeights"][kind]) for kind in kinds])
    accuracy = Accuracy(kinds)
    start, tokens, step = time.monotonic(), 0, 0
    with batches(stage["data"], seed, stage["positionJumps"], Hiding.of(stage, kinds)) as stream:
        for batch in stream:
            rate = learning_rate(stage["learningRate"], tokens / stage["tokens"], step, plan["warmUpSteps"])
            loss, hits, kinds_hit = loss_and_hits(network, batch, weights, lost)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(others, 1.0)
            for group in adam.param_groups:
                group["lr"] = plan["otherLearningRate"] * rate
            muon.step(plan["matrixLearningRate"] * rate)
            adam.step()
            network.zero_grad()
            tokens += batch.tokens.numel()
            step += 1
            accuracy.add(hits, kinds_hit)
            done = tokens >= stage["tokens"]
            if done or step % LOG_EVERY_STEPS == 0:
                seconds = time.monotonic() - start
                yield {
                    "event": "stage-end" if done else "step",
                    "stage": stage["name"],
                    "seed": seed,
                    "step": step,
                    "tokens": tokens,
                    "seconds": round(seconds, 1),
                    "tokensPerSecond": round(tokens / seconds),
                    "rate": round(rate, 4),
                    "loss": round(loss.item(), 4),
                    "accuracy": accuracy.read(),
                }
            if done:
                return


def learning_rate(bounds: list[float], done: float, step: int, warm_up: int) -> float:
    """Factor on the learning rates: linear from the first bound to the second, after a warm-up."""
    return (bounds[0] + (bounds[1] - bounds[0]) * min(1.0, done)) * min(1.0, (step + 1) / warm_up)


@dataclass(frozen=True)
class Lost:
    """Values that the model cannot know: tokens of this kind may be any of these values."""

    kind: int
    values: list[int]


def loss_and_hits(network: Network, batch: Batch, weights: Tensor, lost: Lost) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted cross-entropy of the next token; for the n tokens that carry loss: predicted right (n), kind (n).

    Where the value is lost, the probability of all values together counts.
    """
    positions = None if batch.positions is None else batch.positions[:, :-1]
    visible = None if batch.visible is None else batch.visible[:, :, :-1, :-1]
    hidden = network.hidden(batch.tokens[:, :-1], positions, visible)
    kinds = batch.kinds[:, 1:]
    counted = kinds > 0
    logits = network.head(hidden[counted])
    targets, kinds = batch.tokens[:, 1:][counted], kinds[counted]
    weight = weights[kinds]
    losses = F.cross_entropy(logits, targets, reduction="none")
    predicted = logits.detach().argmax(-1)
    hits = predicted == targets
    free = kinds == lost.kind
    if free.any():
        any_value = logits[free].log_softmax(-1)[:, lost.values].logsumexp(-1)
        losses = losses.index_put((free.nonzero()[:, 0],), -any_value)
        hits = hits | (free & torch.isin(predicted, torch.tensor(lost.values)))
    return (losses * weight).sum() / weight.sum(), hits, kinds


class Accuracy:
    """Share of tokens predicted right, by kind, since the last reading."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.right = torch.zeros(len(kinds))
        self.total = torch.zeros(len(kinds))

    def add(self, hits: Tensor, kinds: Tensor) -> None:
        """hits (n) and kinds (n) of one batch."""
        self.total += torch.bincount(kinds, minlength=len(self.kinds))
        self.right += torch.bincount(kinds, weights=hits.float(), minlength=len(self.kinds))

    def read(self) -> dict[str, float]:
        """The shares of the kinds that occurred; starts counting again."""
        shares = {
            kind: round(float(self.right[index] / self.total[index]), 5)
            for index, kind in enumerate(self.kinds)
            if self.total[index] > 0
        }
        self.right.zero_()
        self.total.zero_()
        return shares


def load_network(file: Path) -> Network:
    """The network of a weights file, with as many words as it has."""
    weights = torch.load(file, weights_only=True)
    network = Network(Shape(vocabulary=len(weights["embedding"])))
    network.load_state_dict(weights)
    return network


def weights_file(folder: Path, stage: int) -> Path:
    """File of the weights that a stage leaves."""
    return folder / f"stage-{stage}.pt"


def now() -> str:
    """Time of day, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def progress(entry: dict[str, Any]) -> str:
    """One short line for the terminal."""
    if entry["event"] == "start":
        return f"seed {entry['seed']}, {entry['parameters']:,} parameters, from stage {entry['fromStage']}"
    shown = {kind: value for kind, value in entry["accuracy"].items() if value < 0.9999}
    return (
        f"{entry['stage']} {entry['tokens'] / 1e6:.2f} M tokens, {entry['seconds']:.0f} s, "
        f"{entry['tokensPerSecond']} tok/s, loss {entry['loss']:.4f}, below 99.99 %: {shown}"
    )


if __name__ == "__main__":
    main()
