"""Exact answers of the English model, free-running and greedy, with a full cache.

python -m english.evaluate --folder FOLDER [--people N ...] [--stories N] [--seed N]     in the folder `model`
"""

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from .decode import generate
from .network import Network
from .stories import END, encode, prompt_text, read_stories

# Training uses seeds below this.
FIRST_SEED = 1_000_000
# A model that does not end may write this many tokens more than 1.2 times the right text has.
SPARE_TOKENS = 32


def main() -> None:
    """Prints one JSON line per number of people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="model folder, see folder.py")
    parser.add_argument("--people", type=int, nargs="+", default=[16])
    parser.add_argument("--stories", type=int, default=200)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="stories of n people use seed + n")
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, help="append the lines to this file")
    parser.add_argument("--texts", type=Path, help="write what the model wrote to this file, a JSON line per story")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = json.loads((arguments.folder / "config.json").read_text())
    network = Network(config, load_file(arguments.folder / "model.safetensors"), torch.float32)
    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    for people in arguments.people:
        stories = read_stories(people, arguments.stories, arguments.seed + people)
        start = time.monotonic()
        written: list[str] = []
        tokens = 0
        for first in range(0, len(stories), arguments.batch):
            batch = stories[first : first + arguments.batch]
            texts, new_tokens = write(network, tokenizer, batch)
            written += texts
            tokens += new_tokens
            if arguments.texts is not None:
                append(arguments.texts, list(map(judged, batch, texts)))
            right = sum(map(exact, stories, written))
            print(f"{right} of {len(written)} exact, {time.monotonic() - start:.0f} s", flush=True)
        seconds = time.monotonic() - start
        right = sum(map(exact, stories, written))
        entry = {
            "event": "evaluation",
            "people": people,
            "stories": len(stories),
            "seed": arguments.seed + people,
            "answerExact": right / len(stories),
            "answerInterval95": wilson(right, len(stories)),
            "firstMistakes": dict(Counter(filter(None, map(first_mistake, stories, written)))),
            "tokensPerStory": round(tokens / len(stories), 1),
            "seconds": round(seconds, 1),
            "newTokensPerSecond": round(tokens / seconds, 1),
            "batch": arguments.batch,
            "threads": arguments.threads,
            "torch": torch.__version__,
        }
        print(json.dumps(entry), flush=True)
        if arguments.log is not None:
            append(arguments.log, [entry])


def write(network: Network, tokenizer: Tokenizer, stories: list[Any]) -> tuple[list[str], int]:
    """What the network writes for each story, without the token that ends it, and how many tokens that were."""
    prompts = [encode(tokenizer, prompt_text(story)) for story in stories]
    longest = max(len(encode(tokenizer, story["reasoning"] + story["answer"])) for story in stories)
    end = tokenizer.token_to_id(END)
    rows = generate(network, prompts, end, math.ceil(1.2 * longest) + SPARE_TOKENS)
    texts = [tokenizer.decode(row, skip_special_tokens=False).removesuffix(END) for row in rows]
    return texts, sum(map(len, rows))


def judged(story: Any, text: str) -> dict[str, Any]:
    """A line about a story and what was written for it."""
    return {"exact": exact(story, text), "mistake": first_mistake(story, text), "written": text, **story}


def exact(story: Any, text: str) -> bool:
    """Whether the thinking ends and the right answer follows; a second `</think>` is a wrong answer."""
    _, _, answer = text.partition("</think>")
    return bool(answer.strip() == story["answer"])


def first_mistake(story: Any, text: str) -> str | None:
    """Where the text goes wrong first: a person left out, a count, the end, the answer; None: nowhere.

    A wrong count is told apart by the sentences before it, which say what it was made of.
    """
    thinking, ended, _ = text.partition("</think>")
    lines = thinking.strip().split("\n")[1:-1]
    known: dict[str, int] = {}
    for person, line in zip(story["people"], lines, strict=False):
        name, count = person["name"], person["count"]
        statement = next(part for part in story["prompt"].split(". ") if part.startswith(f"{name} has"))
        if f" So {name} has " not in line:
            return "person"
        if f" So {name} has {count}." not in line:
            return f"{relation(statement)}: {cause(statement, line, known)}"
        known[name] = count
    if len(lines) != len(story["people"]):
        return "people left out" if len(lines) < len(story["people"]) else "too many lines"
    if not ended:
        return "no end of thinking"
    return None if exact(story, text) else "answer"


def relation(statement: str) -> str:
    """How the prompt gives a count."""
    return next((word for word in ("more", "fewer", "together") if word in statement.split()), "given")


def cause(statement: str, line: str, known: dict[str, int]) -> str:
    """Why a count is wrong."""
    words = [word.strip(".,?") for word in statement.split()]
    used = [word for word in words[1:] if word in known]
    if any(word not in line for word in used):
        return "reference"
    before_sum = line.split(" = ")[0]
    numbers = [word.strip(".,?") for word in before_sum.split()]
    given = [word for word in words if word.isdigit()]
    if any(number not in numbers for number in given):
        return "operand"
    if any(str(known[word]) not in numbers for word in used):
        return "lookup"
    return "sum" if used else "restated"


def append(file: Path, entries: list[dict[str, Any]]) -> None:
    """Adds JSON lines."""
    with file.open("a") as log:
        log.writelines(json.dumps(entry) + "\n" for entry in entries)


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share."""
    share = right / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return round(max(0.0, centre - half) / scale, 4), round((centre + half) / scale, 4)


if __name__ == "__main__":
    main()
