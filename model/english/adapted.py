"""The network with its adapter, for training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .network import Network
from .weights import Weights


class Adapted(Network):
    """A network whose matrices W act as W + scale * B @ A; only A (r, in) and B (out, r), in float32, are trained."""

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, dtype: torch.dtype, rank: int, scale: float
    ) -> None:
        super().__init__(config, weights, dtype)
        self.scale = scale
        names = [name for name in self.weights if name.endswith("_proj.weight")]
        # B is 0, so that training starts from the model as it is.
        self.down = {name: _random(rank, self.weights[name].shape[1]) for name in names}
        self.up = {name: nn.Parameter(torch.zeros(self.weights[name].shape[0], rank)) for name in names}

    def linear(self, x: Tensor, name: str) -> Tensor:
        """x (..., in) times the adapted weight (out, in)."""
        low = F.linear(x, self.down[name].to(x.dtype))
        return F.linear(x, self.weights[name]) + F.linear(low, self.up[name].to(x.dtype) * self.scale)

    def adapter(self) -> dict[str, nn.Parameter]:
        """All that is trained, by the names of the adapter file."""
        return {
            **{f"A.{name}": parameter for name, parameter in self.down.items()},
            **{f"B.{name}": parameter for name, parameter in self.up.items()},
        }

    @torch.no_grad()
    def load_adapter(self, file: Path) -> None:
        """Goes on from an adapter file."""
        saved = load_file(file)
        for name, parameter in self.adapter().items():
            parameter.copy_(saved[name].float())

    def save_adapter(self, file: Path) -> None:
        """Writes the adapter in bfloat16, which halves it."""
        tensors = {name: parameter.detach().bfloat16() for name, parameter in self.adapter().items()}
        save_file(tensors, file)


def _random(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))
