"""Which tokens of some KV blocks say least: those whose keys later tokens repeat.

After R-KV (arXiv 2505.24133), without its attention scores: the cosine of keys, here before their rotation, so that the
same word at another position is the same key. The embedded engine does the same (engine/model/merge.ts).
"""

from dataclasses import dataclass

import torch

#: Similarities are compared in steps of this size: what differs by rounding only is equal.
RESOLUTION = 1e-3
#: Similarities that are held at once, 128 MB of them.
MAX_SIMILARITIES = 1 << 25


@dataclass(frozen=True)
class Rotation:
    """The rotary positions of a layer's keys (RoFormer, arXiv 2104.09864)."""

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


def most_repeated(keys: torch.Tensor, positions: torch.Tensor, candidates: int, count: int) -> torch.Tensor:
    """Marks, for each head, the `count` of the first `candidates` tokens whose keys later tokens repeat the most.

    keys: [heads, tokens, head size], before rotation; positions: [heads, tokens]. Returns bool [heads, candidates].
    The repetition of a token is the highest cosine of its key with that of a token at a later position, among all the
    tokens; -1 where there is none. Of equally repeated tokens the oldest goes.
    """
    heads, tokens, _ = keys.shape
    unit = torch.nn.functional.normalize(keys.float(), dim=-1)
    repetition = torch.empty(heads, candidates, device=keys.device)
    rows = max(1, MAX_SIMILARITIES // (heads * tokens))
    for start in range(0, candidates, rows):
        some = slice(start, min(start + rows, candidates))
        earlier = positions[:, None, :] <= positions[:, some, None]
        repetition[:, some] = (unit[:, some] @ unit.transpose(1, 2)).masked_fill_(earlier, -1.0).amax(-1)
    steps = (repetition / RESOLUTION).round().long()
    # below 2^32 positions, so that one number orders by repetition, then by age
    order = (positions[:, :candidates].long() - (steps << 32)).argsort(-1)
    marked = torch.zeros(order.shape, dtype=torch.bool, device=keys.device)
    return marked.scatter_(1, order[:, :count], True)
