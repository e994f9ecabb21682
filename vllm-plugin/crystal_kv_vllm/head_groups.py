"""The head groups that are measured: one KV head of one layer each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Of the masses of a measured step, when the whole pool is in use: a byte for each block and head group.
MAX_STEP_BYTES = 2 << 20

#: A layer, by vLLM's name, and a KV head of it.
HeadGroup = tuple[str, int]


@dataclass(frozen=True)
class HeadGroups:
    """All head groups, numbered layer by layer. What is announced to the policy service is what is sent.

    Of a model with a large pool it is a spread of them, so that what is measured in a step stays small. Layers without
    attention have none. With tensor parallelism they are those of rank 0, a part of the model's.
    """

    #: Layers with attention, in the model's order.
    layers: tuple[str, ...]
    #: In each of them.
    kv_heads: int
    #: A spread of so many is measured, if there are more.
    most: int = 1 << 31

    @classmethod
    def of(cls, kv_cache_config: Any) -> "HeadGroups":
        """From the one KV cache group of a supported model."""
        (group,) = kv_cache_config.kv_cache_groups
        most = max(1, MAX_STEP_BYTES // kv_cache_config.num_blocks)
        return cls(tuple(group.layer_names), group.kv_cache_spec.num_kv_heads, most)

    def __len__(self) -> int:
        return min(len(self.layers) * self.kv_heads, self.most)

    def select(self, numbers: Sequence[int]) -> tuple[HeadGroup, ...]:
        """The head groups with these numbers, in this order; none named: all. The numbers must be below the length."""
        return tuple(self._group(number) for number in numbers or range(len(self)))

    def _group(self, number: int) -> HeadGroup:
        there = len(self.layers) * self.kv_heads
        part = there // len(self)
        # other heads in other layers
        place = number * there // len(self) + number % min(self.kv_heads, part)
        return self.layers[place // self.kv_heads], place % self.kv_heads
