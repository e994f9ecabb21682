"""A reference for merges of KV blocks, to check engines against: what is dropped, and what the model computes then.

A merge drops, for each layer and KV head by itself, the tokens whose keys later tokens repeat the most: the cosine of
the keys before their rotation, compared in steps of 1/1000; of equally repeated tokens the oldest goes. Where the kept
tokens lie does not matter here: a merge is a mask, as an eviction is.

    python merge_reference.py      writes golden-merged.json anew (after reference.py, whose prompt and tokens it takes)
"""

import json
from typing import Any

import numpy as np

import reference

GOLDEN = reference.FOLDER / "golden-merged.json"
#: Merges of the golden case: at which position, blocks [first, last) among the prompt's successors, how many are freed.
MERGES = ((160, 0, 3, 1), (240, 0, 8, 3), (352, 0, 15, 6))


def drop(keys: reference.Array, tokens: list[int], others: list[int], count: int) -> list[int]:
    """The `count` of `tokens` that are repeated the most by later ones of `tokens` and `others`.

    keys (T, c): of one layer and KV head, before rotation.
    """
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    own, other = np.array(tokens), np.array(tokens + others)
    similar = np.where(other[None] > own[:, None], unit[own] @ unit[other].T, -1.0)
    steps = np.round(similar.max(axis=-1) * 1000)
    order = sorted(zip(-steps, tokens, strict=True))
    return sorted(position for _, position in order[:count])


def blocks(first: int, last: int) -> list[int]:
    """The positions in the blocks [first, last)."""
    return list(range(first * reference.BLOCK, last * reference.BLOCK))


def main() -> None:
    """Writes golden-merged.json."""
    plain = json.loads(reference.GOLDEN.read_text())
    model = reference.Reference()
    prompt: list[int] = plain["prompt"]
    tokens: list[int] = prompt + plain["cases"][0]["continuation"]
    start = -(-len(prompt) // reference.BLOCK)
    visible = np.ones((model.layers, model.key_value_heads, len(tokens), len(tokens)), np.bool_)
    merges: list[dict[str, Any]] = []
    for generated, first, last, freed in MERGES:
        at = (len(prompt) + generated) // reference.BLOCK * reference.BLOCK
        keys = model.keys(tokens[:at], visible[:, :, :at, :at])
        dropped: list[list[list[int]]] = []
        for layer in range(model.layers):
            dropped.append([])
            for head in range(model.key_value_heads):
                seen = visible[layer, head, -1]
                held = [position for position in blocks(start + first, start + last) if seen[position]]
                others = blocks(start + last, at // reference.BLOCK)
                gone = drop(keys[layer, head], held, others, freed * reference.BLOCK)
                visible[layer, head, at:, gone] = False
                dropped[layer].append(gone)
        merges.append({"at": at, "first": start + first, "last": start + last, "freed": freed, "dropped": dropped})
    logits = model.logits(tokens, visible)
    positions = np.linspace(merges[0]["at"], len(tokens) - 2, 8).astype(int).tolist()
    golden = {
        "about": "What crystal-mini computes for the tokens of golden.json's full case while its blocks are merged, by "
        "model/merge_reference.py in float64. Before position `at` all tokens of the logical blocks [first, last) are "
        "merged, and `freed` of the blocks become free; `dropped` are the positions that go, by layer and KV head.",
        "command": "python model/merge_reference.py",
        "weightsSha256": reference.weights_hash(),
        "tokens": tokens,
        "promptLength": len(prompt),
        "merges": merges,
        "logits": [{"position": at, "values": [round(float(v), 5) for v in logits[at]]} for at in positions],
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")
    right = (logits[len(prompt) - 1 : -1].argmax(axis=-1) == tokens[len(prompt) :]).mean()
    print(f"{len(merges)} merges; {right:.3f} of the tokens are still the most likely ones")


if __name__ == "__main__":
    main()
