"""Applies the low-rank adapter: a weight W becomes W + scale * B @ A. Needs no torch."""

import json
from pathlib import Path

import numpy as np

from .weights import Weights


def read_adapter(file: Path) -> Weights:
    """A.<weight> (r, in) and B.<weight> (out, r), stored in bfloat16, which numpy does not have, as float32.

    Raises ValueError when the file is cut short or holds another type.
    """
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] != "BF16":
            raise ValueError(f"{file}: {name} is {entry['dtype']}; an adapter is BF16")
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        if end > len(content):
            raise ValueError(f"{file} is cut short: {name} ends at byte {end}")
        halves = np.frombuffer(content[start:end], "<u2")
        tensors[name] = (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    return tensors


def apply_adapter(weights: Weights, adapter: Weights, scale: float) -> None:
    """Changes the weights in place. Raises ValueError when the adapter has a weight that they lack."""
    for name in (name.removeprefix("A.") for name in adapter if name.startswith("A.")):
        if name not in weights:
            raise ValueError(f"the adapter changes {name}, which the model does not have")
        weights[name] += np.float32(scale) * (adapter[f"B.{name}"] @ adapter[f"A.{name}"])
