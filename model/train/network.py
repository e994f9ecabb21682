"""The network that is trained: the same function as Hugging Face's LlamaForCausalLM, in less code.

RMSNorm before each part, rotary positions (halves rotated), grouped-query attention, SwiGLU, tied head.
Shapes: B sequences, T tokens, d width, V words, h query heads, k key-value heads, c width of a head.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-6
ROPE_THETA = 1e4


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    width: int = 128
    layers: int = 3
    query_heads: int = 4
    key_value_heads: int = 2
    head_width: int = 64
    feed_forward: int = 256
    positions: int = 2048


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries = shape.query_heads * shape.head_width
        keys = shape.key_value_heads * shape.head_width
        self.attention_norm = nn.Parameter(torch.ones(shape.width))
        self.feed_forward_norm = nn.Parameter(torch.ones(shape.width))
        self.query = _matrix(queries, shape.width)
        self.key = _matrix(keys, shape.width)
        self.value = _matrix(keys, shape.width)
        # Zero output matrices: at the start every layer passes its input on.
        self.output = nn.Parameter(torch.zeros(shape.width, queries))
        self.gate = _matrix(shape.feed_forward, shape.width)
        self.up = _matrix(shape.feed_forward, shape.width)
        self.down = nn.Parameter(torch.zeros(shape.width, shape.feed_forward))

    def matrices(self) -> list[nn.Parameter]:
        """The parameters that Muon updates."""
        return [self.query, self.key, self.value, self.output, self.gate, self.up, self.down]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor | None) -> Tensor:
        """x (B, T, d); cos and sin broadcast to (B, heads, T, c / 2); visible (B, 1, T, T) or None for all earlier
        tokens. Returns (B, T, d).
        """
        s = self.shape
        batch, time, width = x.shape
        rotated = s.query_heads + s.key_value_heads
        h = F.rms_norm(x, (width,), self.attention_norm, NORM_EPSILON)
        # One product for queries, keys and values: (B, h + 2k, T, c).
        heads = F.linear(h, torch.cat([self.query, self.key, self.value]))
        heads = heads.view(batch, time, rotated + s.key_value_heads, s.head_width).transpose(1, 2)
        first, second = heads[:, :rotated].chunk(2, dim=-1)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        group = s.query_heads // s.key_value_heads
        attended = F.scaled_dot_product_attention(
            turned[:, : s.query_heads],
            turned[:, s.query_heads :].repeat_interleave(group, 1),
            heads[:, rotated:].repeat_interleave(group, 1),
            attn_mask=visible,
            is_causal=visible is None,
        )
        x = x + F.linear(attended.transpose(1, 2).reshape(batch, time, -1), self.output)
        h = F.rms_norm(x, (width,), self.feed_forward_norm, NORM_EPSILON)
        return x + F.linear(F.silu(F.linear(h, self.gate)) * F.linear(h, self.up), self.down)


class Network(nn.Module):
    """Embedding, layers, norm; the head is the embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * EMBEDDING_SCALE)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.full((shape.width,), 0.3))
        frequencies = ROPE_THETA ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
        angles = torch.arange(shape.positions).float()[:, None] * frequencies
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        start_as_back_heads(self, frequencies)

    @torch.no_grad()
    def add_words(self, vocabulary: int) -> None:
        """Appends embeddings until there are `vocabulary` of them: random, as large as the trained ones, and with the
        mean of their constant dimension.
        """
        trained = self.embedding.detach()
        added = torch.randn(vocabulary - len(trained), self.shape.width) * trained.std()
        added[:, 0] = trained[:, 0].mean()
        self.embedding = nn.Parameter(torch.cat([trained, added]))
        self.shape = replace(self.shape, vocabulary=vocabulary)

    def layers(self) -> list[Block]:
        """The layers, in order."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """tokens (B, T), positions (B, T) or None for 0..T-1, visible (B, 1, T, T) or None for all earlier tokens.
        Returns the normed hidden states (B, T, d).
        """
        if positions is None:
            cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        h = F.embedding(tokens, self.embedding)
        for block in self.blocks:
            h = block(h, cos, sin, visible)
        return F.rms_norm(h, (h.shape[-1],), self.norm, NORM_EPSILON)

    def head(self, hidden: Tensor) -> Tensor:
        """hidden (..., d) to logits (..., V)."""
        return F.linear(hidden, self.embedding)


EMBEDDING_SCALE = 0.3
CONSTANT = 0.9


@torch.no_grad()
def start_as_back_heads(network: Network, frequencies: Tensor, used: int = 12, strength: float = 2.5) -> None:
    """Starts the first heads of layer 0 as heads that look one, two, ... tokens back.

    Looking up `name =v` needs such a head below it; found by chance, it takes a large part of the training. Dimension 0
    of every embedding is set to one constant, which gives queries and keys a part that does not depend on the word:
    with key (a, 0) and query a * (cos p, -sin p) in a pair of frequency f, the score at distance t is a^2 cos(f t - p),
    largest at t = n for p = f n. The `used` highest frequencies make the peak sharp.
    """
    shape = network.shape
    block = network.layers()[0]
    width, half = shape.head_width, shape.head_width // 2
    network.embedding[:, 0] = CONSTANT
    mean_square = (EMBEDDING_SCALE**2 * (shape.width - 1) + CONSTANT**2) / shape.width
    amplitude = math.sqrt(strength * math.sqrt(width)) * math.sqrt(mean_square) / CONSTANT
    block.key[:width] *= 0.1
    block.key[:width, 0] = 0
    block.key[:used, 0] = amplitude
    for head in range(shape.query_heads // shape.key_value_heads):
        query = block.query[head * width : (head + 1) * width]
        query *= 0.1
        query[:, 0] = 0
        phase = frequencies[:used] * (head + 1)
        query[:used, 0] = amplitude * phase.cos()
        query[half : half + used, 0] = -amplitude * phase.sin()
    block.output.copy_(torch.randn_like(block.output) / math.sqrt(block.output.shape[1]) * 0.5)
