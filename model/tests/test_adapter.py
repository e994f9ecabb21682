"""The English model's adapter: what is read, and what it does to a weight."""

import json
from pathlib import Path

import numpy as np
import pytest

from english.adapter import apply_adapter, read_adapter

NAME = "model.layers.0.mlp.up_proj.weight"


def write(file: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> Path:
    """A safetensors file, byte by byte."""
    header, content = {}, b""
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return file


def bfloat16(values: list[float]) -> bytes:
    """Values that bfloat16 holds exactly."""
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


def test_a_weight_becomes_w_plus_twice_b_times_a(tmp_path: Path) -> None:
    file = write(
        tmp_path / "adapter.safetensors",
        {
            f"A.{NAME}": ("BF16", [2, 3], bfloat16([1, 0.5, -2, 0, 4, 1])),
            f"B.{NAME}": ("BF16", [2, 2], bfloat16([1, -1, 0.25, 3])),
        },
    )
    weights = {NAME: np.array([[1, 2, 3], [4, 5, 6]], np.float32), "other": np.ones((1, 1), np.float32)}
    apply_adapter(weights, read_adapter(file), 2.0)
    # B @ A = [[1, -3.5, -3], [.25, 12.125, 2.5]]
    np.testing.assert_array_equal(weights[NAME], [[3, -5, -3], [4.5, 29.25, 11]])
    np.testing.assert_array_equal(weights["other"], [[1]])


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    file = write(
        tmp_path / "adapter.safetensors",
        {f"A.{NAME}": ("BF16", [1, 1], bfloat16([1])), f"B.{NAME}": ("BF16", [1, 1], bfloat16([1]))},
    )
    with pytest.raises(ValueError, match=f"the adapter changes {NAME}, which the model does not have"):
        apply_adapter({}, read_adapter(file), 2.0)


def test_a_file_that_is_cut_short_or_of_another_type_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", {"A.x": ("BF16", [2], bfloat16([1, 2]))})
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is cut short: A\.x ends at byte"):
        read_adapter(whole)
    floats = write(tmp_path / "floats", {"A.x": ("F32", [1], bytes(4))})
    with pytest.raises(ValueError, match=r"A\.x is F32; an adapter is BF16"):
        read_adapter(floats)
