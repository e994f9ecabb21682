"""Stories from the generator (`model/english/generate.ts`), as text and as tokens."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .think_words import CHAT_TEMPLATE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

END = "<|im_end|>"


def generate(*arguments: str) -> list[Any]:
    """What the generator prints; NODE names the node binary, by default the repository's own."""
    node = os.environ.get("NODE", str(ROOT / "node_modules" / ".bin" / "node"))
    command = [node, str(HERE / "generate.ts"), *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def read_stories(people: int, count: int, seed: int) -> list[Any]:
    """Stories of a seed."""
    return generate("--people", str(people), "--count", str(count), "--seed", str(seed))


def piece_kinds() -> list[str]:
    """Names of the kinds of pieces, in the order of their numbers."""
    kinds: list[str] = generate("--kinds")[0]
    return kinds


def prompt_text(story: Any) -> str:
    """What the chat template makes of the story's messages."""
    template = jinja2.Template(CHAT_TEMPLATE.read_text())
    return template.render(messages=story["messages"], add_generation_prompt=True)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text that holds its own special tokens."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@dataclass(frozen=True)
class Batch:
    """Stories padded at their ends. tokens (B, T); kinds (B, T), -1 in prompts and padding, which carry no loss."""

    tokens: Tensor
    kinds: Tensor


def make_batch(tokenizer: Tokenizer, stories: list[Any], end_kind: int) -> Batch:
    """Prompt, completion and the token that ends it, which has the kind `end_kind`, of every story."""
    end = tokenizer.token_to_id(END)
    rows = []
    for story in stories:
        prompt = encode(tokenizer, prompt_text(story))
        tokens, kinds = completion(tokenizer, story)
        rows.append(([*prompt, *tokens, end], [*(-1 for _ in prompt), *kinds, end_kind]))
    length = max(len(tokens) for tokens, _ in rows)
    batch = Batch(torch.full((len(rows), length), end), torch.full((len(rows), length), -1))
    for row, (tokens, kinds) in enumerate(rows):
        batch.tokens[row, : len(tokens)] = torch.tensor(tokens)
        batch.kinds[row, : len(kinds)] = torch.tensor(kinds)
    return batch


def completion(tokenizer: Tokenizer, story: Any) -> tuple[list[int], list[int]]:
    """Tokens of all that the model writes, and their kinds: that of the piece in which a token ends."""
    ends, text = [], ""
    for kind, piece in story["pieces"]:
        text += piece
        ends.append((len(text), kind))
    encoding = tokenizer.encode(text, add_special_tokens=False)
    kinds, index = [], 0
    for _, end in encoding.offsets:
        while ends[index][0] < end:
            index += 1
        kinds.append(ends[index][1])
    return encoding.ids, kinds
