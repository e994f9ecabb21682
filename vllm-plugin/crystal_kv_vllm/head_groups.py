"""The head groups that are measured: one KV head of one layer each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: A layer, by vLLM's name, and a KV head of it.
HeadGroup = tuple[str, int]


@dataclass(frozen=True)
class HeadGroups:
    """All head groups, numbered layer by layer. What is announced to the policy service is what is sent.

    Layers without attention have none. With tensor parallelism they are those of rank 0, a part of the model's.
    """

    #: Layers with attention, in the model's order.
    layers: tuple[str, ...]
    #: In each of them.
    kv_heads: int

    @classmethod
    def of(cls, kv_cache_config: Any) -> "HeadGroups":
        """From the one KV cache group of a supported model."""
        (group,) = kv_cache_config.kv_cache_groups
        return cls(tuple(group.layer_names), group.kv_cache_spec.num_kv_heads)

    def __len__(self) -> int:
        return len(self.layers) * self.kv_heads

    def select(self, numbers: Sequence[int]) -> tuple[HeadGroup, ...]:
        """The head groups with these numbers, in this order; none named: all. The numbers must be below the length."""
        return tuple((self.layers[n // self.kv_heads], n % self.kv_heads) for n in numbers or range(len(self)))
