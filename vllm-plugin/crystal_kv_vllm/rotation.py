"""Rotary positions (RoFormer, arXiv 2104.09864), and keys as they were before."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rotation:
    """The rotary positions of a layer's keys."""

    #: [positions, rotated channels]: cosines, then sines, as vLLM keeps them.
    cos_sin: torch.Tensor
    #: Channel i is paired with channel i + half; else each with its neighbour.
    halves: bool

    def undo(self, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys [..., head size] as they were before they were rotated by their positions [...]."""
        cos, sin = self.cos_sin[positions.long()].to(keys.dtype).chunk(2, -1)
        channels = 2 * cos.shape[-1]
        rotated, rest = keys[..., :channels], keys[..., channels:]
        if self.halves:
            a, b = rotated.chunk(2, -1)
            plain = torch.cat([a * cos + b * sin, b * cos - a * sin], -1)
        else:
            a, b = rotated[..., ::2], rotated[..., 1::2]
            plain = torch.stack([a * cos + b * sin, b * cos - a * sin], -1).flatten(-2)
        return torch.cat([plain, rest], -1)

    def turn(self, vectors: torch.Tensor, positions: int) -> torch.Tensor:
        """Rotated vectors [..., head size] as they are so many positions later."""
        cos, sin = self.cos_sin[positions].to(vectors.dtype).chunk(2)
        # a turn forward is the undoing of a turn back
        back = Rotation(torch.cat([cos, -sin])[None], self.halves)
        return back.undo(vectors, torch.zeros(vectors.shape[:-1], dtype=torch.long, device=vectors.device))
