"""A Llama model in memory, and as a Hugging Face folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from .weights import Weights


@dataclass(frozen=True)
class Model:
    """What a folder holds. Weights are named as there, in float32."""

    config: dict[str, Any]
    weights: Weights
    tokenizer: Tokenizer
    chat_template: str


def write_files(model: Model, folder: Path) -> None:
    """Writes the files into a folder that is there."""
    save_file(model.weights, folder / "model.safetensors", {"format": "pt"})
    model.tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>"}
    generation = {"do_sample": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    for name, content in (
        ("config.json", model.config),
        ("generation_config.json", generation),
        ("tokenizer_config.json", {"chat_template": model.chat_template, **tokens}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2))


def read_folder(folder: Path) -> Model:
    """Reads a folder of a model whose tokenizer is in tokenizer.json."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    return Model(
        config=json.loads((folder / "config.json").read_text()),
        weights=load_file(folder / "model.safetensors"),
        tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        chat_template=settings["chat_template"],
    )
