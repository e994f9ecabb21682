"""An independent forward pass of crystal-mini in numpy, to check engines against.

It computes LlamaForCausalLM from the weights file alone, in float64 and without a cache, so that it is plain to read
and has nothing in common with the engines that it judges. An eviction is a mask: from some query position on, the
evicted key positions are not seen. A merge of blocks is a mask too, another one for each layer and KV head.

    python reference.py            writes golden.json anew (needs node for the program)

Shapes: T tokens, d width, V words, h query heads, k key-value heads, c width of a head.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "crystal-mini"
GOLDEN = FOLDER / "golden.json"
BLOCK = 16
PROGRAM = ("--lines", "24", "--seed", "2000000")
MAX_NEW_TOKENS = 480


class Reference:
    """The weights and configuration of a model folder."""

    def __init__(self, folder: Path = MODEL) -> None:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        self.weights: dict[str, Array] = {name: value.astype(np.float64) for name, value in weights.items()}
        self.layers: int = config["num_hidden_layers"]
        self.query_heads: int = config["num_attention_heads"]
        self.key_value_heads: int = config["num_key_value_heads"]
        self.head_width: int = config["head_dim"]
        self.epsilon: float = config["rms_norm_eps"]
        self.theta: float = config["rope_parameters"]["rope_theta"]
        self.end: int = config["eos_token_id"]

    def logits(self, tokens: Sequence[int], visible: Mask | None = None) -> Array:
        """Logits (T, V) of the tokens that follow each position.

        visible (T, T), or (layers, KV heads, T, T): whether the query of a row sees the key of a column; None stands
        for every earlier key. Later keys are never seen, whatever the mask says.
        """
        embedding = self.weights["model.embed_tokens.weight"]
        result: Array = self._norm(self._run(tokens, visible)[0], "model.norm") @ embedding.T
        return result

    def keys(self, tokens: Sequence[int], visible: Mask | None = None) -> Array:
        """Keys (layers, KV heads, T, c) before their rotation; `visible` as for `logits`."""
        return self._run(tokens, visible)[1]

    def _run(self, tokens: Sequence[int], visible: Mask | None) -> tuple[Array, Array]:
        """The last layer's output (T, d), and what `keys` gives."""
        count = len(tokens)
        causal: Mask = np.tril(np.ones((count, count), np.bool_))
        seen = np.broadcast_to(
            causal if visible is None else causal & visible, (self.layers, self.key_value_heads, count, count)
        )
        x: Array = self.weights["model.embed_tokens.weight"][np.asarray(tokens)]
        cos, sin = self._angles(count)
        keys = []
        for layer in range(self.layers):
            normed = self._norm(x, f"model.layers.{layer}.input_layernorm")
            keys.append(self._heads(normed, f"model.layers.{layer}.self_attn.k_proj", self.key_value_heads))
            x = x + self._attention(layer, normed, cos, sin, seen[layer])
            x = x + self._feed_forward(layer, self._norm(x, f"model.layers.{layer}.post_attention_layernorm"))
        return x, np.stack(keys)

    def greedy(self, prompt: Sequence[int], hidden: Sequence[int] = (), from_query: int = 0) -> list[int]:
        """The most likely continuation, up to and with the end token; `hidden` and `from_query` as in `mask`."""
        tokens = list(prompt)
        while len(tokens) - len(prompt) < MAX_NEW_TOKENS:
            row = self.logits(tokens, mask(len(tokens), hidden, from_query))[-1]
            tokens.append(int(row.argmax()))
            if tokens[-1] == self.end:
                break
        return tokens[len(prompt) :]

    def _norm(self, x: Array, name: str) -> Array:
        scaled: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        return scaled * self.weights[f"{name}.weight"]

    def _angles(self, count: int) -> tuple[Array, Array]:
        """Cosine and sine (T, c / 2) of position times frequency."""
        frequencies = self.theta ** (-np.arange(0, self.head_width, 2) / self.head_width)
        angles = np.arange(count)[:, None] * frequencies
        return np.cos(angles), np.sin(angles)

    def _heads(self, x: Array, name: str, heads: int) -> Array:
        """Projects x (T, d) to (heads, T, c)."""
        projected: Array = x @ self.weights[f"{name}.weight"].T
        return projected.reshape(len(x), heads, self.head_width).transpose(1, 0, 2)

    def _attention(self, layer: int, x: Array, cos: Array, sin: Array, seen: Mask) -> Array:
        part = f"model.layers.{layer}.self_attn"
        group = self.query_heads // self.key_value_heads
        queries = rotate(self._heads(x, f"{part}.q_proj", self.query_heads), cos, sin)
        keys = rotate(self._heads(x, f"{part}.k_proj", self.key_value_heads), cos, sin).repeat(group, axis=0)
        values = self._heads(x, f"{part}.v_proj", self.key_value_heads).repeat(group, axis=0)
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(self.head_width)
        scores = np.where(seen.repeat(group, axis=0), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = (shares @ values).transpose(1, 0, 2).reshape(len(x), -1)
        result: Array = mixed @ self.weights[f"{part}.o_proj.weight"].T
        return result

    def _feed_forward(self, layer: int, x: Array) -> Array:
        part = f"model.layers.{layer}.mlp"
        gate = x @ self.weights[f"{part}.gate_proj.weight"].T
        up = x @ self.weights[f"{part}.up_proj.weight"].T
        result: Array = (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{part}.down_proj.weight"].T
        return result


def rotate(heads: Array, cos: Array, sin: Array) -> Array:
    """Rotary positions on (heads, T, c): dimension i is paired with dimension i + c / 2."""
    first, second = np.split(heads, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def mask(count: int, hidden: Sequence[int], from_query: int) -> Mask:
    """What `Reference.logits` takes: queries at positions `from_query` and later do not see the hidden keys."""
    visible = np.ones((count, count), np.bool_)
    keys = [key for key in hidden if key < count]
    visible[from_query:, keys] = False
    return visible


def make_case(reference: Reference, name: str, prompt: list[int], hidden: list[int], from_query: int) -> dict[str, Any]:
    """One entry of golden.json: the continuation, and all logits at six positions."""
    continuation = reference.greedy(prompt, hidden, from_query)
    tokens = [*prompt, *continuation]
    logits = reference.logits(tokens, mask(len(tokens), hidden, from_query))
    last = len(tokens) - 2
    positions = np.linspace(len(prompt) - 1, last, 6).astype(int).tolist()
    return {
        "name": name,
        "hiddenKeys": hidden,
        "fromQuery": from_query,
        "continuation": continuation,
        "logits": [{"position": at, "values": [round(float(v), 5) for v in logits[at]]} for at in positions],
    }


def blocks_to_hide(program: dict[str, Any]) -> tuple[list[int], int]:
    """The whole blocks of 16 positions with the only copy of a cold register that is asked, and the block before.

    They are hidden from the first block boundary at least 64 positions later.
    """
    cold = {query["register"] for query in program["queries"] if query["class"] == "cold"}
    lookup = next(item for item in program["lookups"] if item["where"] == "answer" and item["register"] in cold)
    block = lookup["earlierPositions"][0] // BLOCK
    return list(range((block - 1) * BLOCK, (block + 1) * BLOCK)), (block + 1) * BLOCK + 4 * BLOCK


def main() -> None:
    """Writes golden.json."""
    node = os.environ.get("NODE", str(FOLDER.parent / "node_modules" / ".bin" / "node"))
    command = [node, str(FOLDER / "generate.ts"), *PROGRAM]
    program = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    prompt = program["ids"][: program["promptLength"]]
    reference = Reference()
    hidden, from_query = blocks_to_hide(program)
    golden = {
        "about": "What crystal-mini computes, by model/reference.py in float64. `position` is the index of the token "
        "that goes in, `values` are the logits of the one that follows, by token id. Queries at `fromQuery` and later "
        "do not see `hiddenKeys`.",
        "command": "python model/reference.py",
        "program": "node model/generate.ts " + " ".join(PROGRAM),
        "weightsSha256": weights_hash(),
        "prompt": prompt,
        "cases": [
            make_case(reference, "full", prompt, [], 0),
            make_case(reference, "evicted", prompt, hidden, from_query),
        ],
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")
    for case in golden["cases"]:
        right = case["continuation"] == program["ids"][len(prompt) :]
        print(f"{case['name']}: {len(case['continuation'])} tokens, as the generator has them: {right}")


def weights_hash() -> str:
    """SHA-256 of the weights file."""
    return hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
