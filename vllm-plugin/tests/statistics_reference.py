"""Statistics of tokens as the contract defines them, in float64, query by query: what workers must come to."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NAMES = ("attention", "total", "peak", "answer", "window", "last")


@dataclass
class TokenFigures:
    """Of one token in one head group."""

    attention: float = 0.0
    total: float = 0.0
    peak: float = 0.0
    answer: float = 0.0
    last: float = 0.0
    #: Position of each query, and what it gave.
    given: list[tuple[int, float]] = field(default_factory=list)

    def query(self, position: int, mean: float, most: float, half_lives: tuple[float, float]) -> None:
        attention, peak = (2.0 ** (-1 / half_life) for half_life in half_lives)
        self.attention = self.attention * attention + mean
        self.total += mean
        self.peak = max(self.peak * peak, most)
        self.answer *= peak
        self.last = mean
        self.given.append((position, mean))

    def probe(self, most: float) -> None:
        self.peak = max(self.peak, most)
        self.answer = max(self.answer, most)

    def asked(self, most: float) -> None:
        self.answer = max(self.answer, most)

    @property
    def window(self) -> float:
        newest = self.given[-1][0] if self.given else 0
        return sum(mean for position, mean in self.given if position >= (newest // 64 - 1) * 64)

    def all(self) -> list[float]:
        """In the order of NAMES."""
        return [float(getattr(self, name)) for name in NAMES]


def weights(queries: Array, keys: Array, scale: float, softcap: float, sinks: Array | None) -> Array:
    """Of one query's heads on a KV head's tokens: [heads, tokens]. queries: [heads, size]; keys: [tokens, size]."""
    scores = queries @ keys.T * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    powers = np.exp(scores)
    total = powers.sum(-1) + (0 if sinks is None else np.exp(sinks))
    result: Array = powers / total[:, None]
    return result
