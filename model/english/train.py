"""Trains the adapter: `python -m english.train --smollm2 FOLDER --tokens N --state FILE` in the folder `model`.

A step's stories depend on the seed and the step alone, so that a run which was ended goes on as if it had not been,
from the state that it saves every few minutes. In bfloat16 where the processor is fast at it, in float32 elsewhere.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from .adapted import Adapted
from .model import read_folder
from .stories import HERE, Batch, generate, make_batch, piece_kinds, read_stories
from .think_words import with_think

LOG_EVERY_STEPS = 5
SAVE_EVERY_S = 180
# Of prompt, thinking and answer.
TOKENS_PER_PERSON = 58


def main() -> None:
    """Trains until the tokens are seen; leaves the adapter and the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, required=True, help="folder that make-folder.ts --base prints")
    parser.add_argument("--tokens", type=int, required=True, help="tokens to train for, prompts included")
    parser.add_argument("--state", type=Path, required=True, help="file to go on from, if it is there, and to save to")
    parser.add_argument("--start", type=Path, help="adapter to start from, if there is no state; default: none")
    parser.add_argument("--adapter", type=Path, default=HERE / "adapter.safetensors")
    parser.add_argument("--log", type=Path, default=HERE / "training-log.jsonl")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = json.loads((HERE / "settings.json").read_text())
    torch.manual_seed(settings["seed"])

    dtype = torch.bfloat16 if multiplies_bfloat16() else torch.float32
    model = with_think(read_folder(arguments.smollm2))
    network = Adapted(model.config, model.weights, dtype, settings["rank"], settings["scale"])
    run = Run(network, model.tokenizer, settings)
    if arguments.state.exists():
        run.load(arguments.state)
    elif arguments.start is not None:
        network.load_adapter(arguments.start)

    with arguments.log.open("a") as log:

        def write(entry: dict[str, Any]) -> None:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(json.dumps(entry), flush=True)

        write(
            {
                "event": "start",
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                **{name: settings[name] for name in ("seed", "rank", "learningRate")},
                "trained": sum(parameter.numel() for parameter in network.adapter().values()),
                "step": run.step,
                "tokens": run.tokens,
                "until": arguments.tokens,
                "fromAdapter": arguments.start is not None,
                "dtype": str(dtype).removeprefix("torch."),
                "torch": torch.__version__,
                "threads": arguments.threads,
            }
        )
        start, before, saved = time.monotonic(), run.tokens, time.monotonic()
        while run.tokens < arguments.tokens:
            rate = run.advance(arguments.tokens)
            done = run.tokens >= arguments.tokens
            if done or run.step % LOG_EVERY_STEPS == 0:
                seconds = time.monotonic() - start
                write(
                    {
                        "event": "step",
                        "step": run.step,
                        "tokens": run.tokens,
                        "seconds": round(seconds),
                        "tokensPerSecond": round((run.tokens - before) / seconds, 1),
                        "rate": round(rate, 6),
                        **run.accuracy.read(),
                    }
                )
            if done or time.monotonic() - saved > SAVE_EVERY_S:
                run.save(arguments.state)
                network.save_adapter(arguments.adapter)
                saved = time.monotonic()


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without, bfloat16 is slower than float32."""
    flags = Path("/proc/cpuinfo")
    words = flags.read_text().split() if flags.exists() else []
    return "amx_bf16" in words or "avx512_bf16" in words


class Run:
    """Adapter, optimiser and how far they are."""

    def __init__(self, network: Adapted, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.settings = settings
        self.parameters = list(network.adapter().values())
        self.optimizer = torch.optim.AdamW(self.parameters, betas=(0.9, 0.98), weight_decay=0.0)
        self.kinds = piece_kinds()
        self.weights = torch.tensor([float(settings["lossWeights"][kind]) for kind in self.kinds])
        self.accuracy = Accuracy(self.kinds)
        self.step = 0
        self.tokens = 0

    def advance(self, until: int) -> float:
        """One step; returns its learning rate."""
        batch = make_batch(self.tokenizer, read_texts(self.settings, self.step), self.kinds.index("think-end"))
        losses, hits, kinds = losses_and_hits(self.network, batch)
        weight = self.weights[kinds]
        ((losses * weight).sum() / weight.sum()).backward()  # type: ignore[no-untyped-call]
        rate = self.rate(until)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.accuracy.add(losses.detach(), hits, kinds)
        self.step += 1
        self.tokens += batch.tokens.numel()
        return rate

    def rate(self, until: int) -> float:
        """Rises in the first steps, stays, and falls to 0 in a straight line."""
        settings = self.settings
        left = (1 - self.tokens / until) / (1 - settings["decayFrom"])
        rate: float = settings["learningRate"] * min(1.0, (self.step + 1) / settings["warmUpSteps"]) * min(1.0, left)
        return rate

    def save(self, file: Path) -> None:
        """Writes the state in one go, so that a run that is ended meanwhile leaves the one before."""
        adapter = {name: parameter.detach() for name, parameter in self.network.adapter().items()}
        state = {"step": self.step, "tokens": self.tokens, "adapter": adapter, "optimizer": self.optimizer.state_dict()}
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    @torch.no_grad()
    def load(self, file: Path) -> None:
        """Goes on from a state."""
        state = torch.load(file, weights_only=True)
        self.step, self.tokens = state["step"], state["tokens"]
        for name, parameter in self.network.adapter().items():
            parameter.copy_(state["adapter"][name])
        self.optimizer.load_state_dict(state["optimizer"])


def read_texts(settings: dict[str, Any], step: int) -> list[Any]:
    """The stories or sums of a step. Seeds of stories for measurements start at 1,000,000."""
    random = np.random.default_rng([settings["seed"], step])
    seed = settings["seed"] * 100_000 + step
    if random.random() < settings["drillShare"]:
        return generate("--sums", str(settings["drillSums"]), "--seed", str(seed))
    least, most = settings["people"]
    people = int(random.integers(least, most + 1))
    count = max(1, round(settings["storiesTokens"] / (people * TOKENS_PER_PERSON)))
    return read_stories(people, count, seed)


def losses_and_hits(network: Adapted, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """For the n tokens that carry loss: cross-entropy in nats (n), whether they were the most likely (n), kinds (n)."""
    hidden = network.hidden(batch.tokens[:, :-1])
    kinds = batch.kinds[:, 1:]
    counted = kinds >= 0
    logits = network.head(hidden[counted]).float()
    targets = batch.tokens[:, 1:][counted]
    return F.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets, kinds[counted]


class Accuracy:
    """Mean loss and share of tokens predicted right, by kind, since the last reading."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.sums = torch.zeros(3, len(kinds))

    def add(self, losses: Tensor, hits: Tensor, kinds: Tensor) -> None:
        """losses (n), hits (n) and kinds (n) of one batch."""
        for row, values in enumerate((torch.ones_like(losses), losses, hits.float())):
            self.sums[row] += torch.bincount(kinds, weights=values, minlength=len(self.kinds))

    def read(self) -> dict[str, dict[str, float]]:
        """Loss in nats and accuracy of the kinds that occurred; starts counting again."""
        total, loss, right = self.sums
        seen = [index for index in range(len(self.kinds)) if total[index] > 0]
        shares = {
            name: {self.kinds[index]: round(float(sums[index] / total[index]), 4) for index in seen}
            for name, sums in (("loss", loss), ("accuracy", right))
        }
        self.sums.zero_()
        return shares


if __name__ == "__main__":
    main()
