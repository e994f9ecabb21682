"""SmolLM2: the same function as Hugging Face's LlamaForCausalLM, in less code.

Shapes: B sequences, T tokens, d width, V words, h query heads, k key-value heads, c width of a head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import EMBEDDING, Weights


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    layers: int
    query_heads: int
    key_value_heads: int
    head_width: int
    positions: int
    rope_theta: float
    norm_epsilon: float

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Shape":
        """What the model folder's config.json says."""
        return Shape(
            layers=config["num_hidden_layers"],
            query_heads=config["num_attention_heads"],
            key_value_heads=config["num_key_value_heads"],
            head_width=config["hidden_size"] // config["num_attention_heads"],
            positions=config["max_position_embeddings"],
            rope_theta=config["rope_theta"],
            norm_epsilon=config["rms_norm_eps"],
        )


class Network(nn.Module):
    """Frozen weights; the head is the embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Mapping[str, Any], weights: Weights, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = Shape.of(config)
        self.weights = {name: torch.from_numpy(weight).to(dtype) for name, weight in weights.items()}
        width = self.shape.head_width
        frequencies = self.shape.rope_theta ** (-torch.arange(0, width, 2).float() / width)
        angles = torch.arange(self.shape.positions).float()[:, None] * frequencies
        self.register_buffer("cos", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(dtype), persistent=False)

    def linear(self, x: Tensor, name: str) -> Tensor:
        """x (..., in) times a weight (out, in)."""
        return F.linear(x, self.weights[name])

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to (B, T, d)."""
        return F.embedding(tokens, self.weights[EMBEDDING])

    def head(self, hidden: Tensor) -> Tensor:
        """hidden (..., d) to logits (..., V)."""
        return F.linear(hidden, self.weights[EMBEDDING])

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Root mean square of the last dimension, in float32."""
        scaled = F.rms_norm(x.float(), (x.shape[-1],), eps=self.shape.norm_epsilon).to(x.dtype)
        return scaled * self.weights[name]

    def turned(self, heads: Tensor, positions: Tensor) -> Tensor:
        """heads (B, n, T, c) rotated for positions (T) or (B, 1, T)."""
        cos, sin = self.cos[positions], self.sin[positions]
        first, second = heads.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def projected(self, layer: int, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, h, T, c), keys and values (B, k, T, c) of a layer's input x (B, T, d)."""
        s, batch, time, name = self.shape, x.shape[0], x.shape[1], layer_name(layer)
        h = self.norm(x, f"{name}.input_layernorm.weight")
        queries, keys, values = (
            self.linear(h, f"{name}.self_attn.{part}_proj.weight")
            .view(batch, time, heads, s.head_width)
            .transpose(1, 2)
            for part, heads in (("q", s.query_heads), ("k", s.key_value_heads), ("v", s.key_value_heads))
        )
        return self.turned(queries, positions), self.turned(keys, positions), values

    def finished(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output (B, T, d) from its input and attended (B, h, T, c)."""
        name = layer_name(layer)
        joined = attended.transpose(1, 2).reshape(*x.shape[:2], -1)
        x = x + self.linear(joined, f"{name}.self_attn.o_proj.weight")
        h = self.norm(x, f"{name}.post_attention_layernorm.weight")
        gate = F.silu(self.linear(h, f"{name}.mlp.gate_proj.weight"))
        up = self.linear(h, f"{name}.mlp.up_proj.weight")
        return x + self.linear(gate * up, f"{name}.mlp.down_proj.weight")

    def hidden(self, tokens: Tensor) -> Tensor:
        """The normed hidden states (B, T, d) of tokens (B, T) that stand at positions 0 to T - 1."""
        positions = torch.arange(tokens.shape[1])
        x = self.embed(tokens)
        for layer in range(self.shape.layers):
            queries, keys, values = self.projected(layer, x, positions)
            attended = F.scaled_dot_product_attention(
                queries, self.for_queries(keys), self.for_queries(values), is_causal=True
            )
            x = self.finished(layer, x, attended)
        return self.norm(x, "model.norm.weight")

    def for_queries(self, heads: Tensor) -> Tensor:
        """Keys or values (B, k, T, c), each repeated for the query heads that read it: (B, h, T, c)."""
        return heads.repeat_interleave(self.shape.query_heads // self.shape.key_value_heads, 1)


def layer_name(layer: int) -> str:
    """What the names of a layer's weights begin with."""
    return f"model.layers.{layer}"
