"""Gives SmolLM2 the two words that stand around thinking.

Engines tell thinking from answer by one token. The vocabulary has tokens of file formats that no text here holds; two
of them become `<think>` and `</think>`. Their embeddings, which are almost the same for all unused tokens, become the
sums of their pieces' (`</`, `think`, `>`), scaled to the pieces' mean length.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .model import Model
from .weights import EMBEDDING

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
#: New word to the word that it takes the place of.
THINK_WORDS: Mapping[str, str] = {"<think>": "<jupyter_start>", "</think>": "<jupyter_text>"}


def with_think(model: Model) -> Model:
    """The model before its training: with the two words, and with the chat template that opens the thinking."""
    return Model(
        model.config,
        {**model.weights, EMBEDDING: with_think_rows(model.weights[EMBEDDING], model.tokenizer)},
        with_think_words(model.tokenizer),
        CHAT_TEMPLATE.read_text(),
    )


def with_think_words(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with the two words; they are seen in decoded text, as other words are."""
    description: Any = json.loads(tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    for word, replaced in THINK_WORDS.items():
        vocabulary[word] = vocabulary.pop(replaced)
        for added in description["added_tokens"]:
            if added["content"] == replaced:
                added.update(content=word, special=False)
    changed: Tokenizer = Tokenizer.from_str(json.dumps(description))
    return changed


def with_think_rows(embedding: NDArray[np.float32], tokenizer: Tokenizer) -> NDArray[np.float32]:
    """The embedding (V, d) with the rows of the two words; `tokenizer` is the one that does not have them yet."""
    changed = embedding.copy()
    for word, replaced in THINK_WORDS.items():
        pieces = embedding[tokenizer.encode(word, add_special_tokens=False).ids]
        total = pieces.sum(axis=0)
        length = np.linalg.norm(pieces, axis=1).mean()
        changed[tokenizer.token_to_id(replaced)] = total * (length / np.linalg.norm(total))
    return changed
