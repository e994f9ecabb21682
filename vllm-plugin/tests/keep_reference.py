"""What a merge keeps, token by token in float64: what engines are compared with. The contract is in policy.proto.

One head group at a time: one KV head of one layer. A rule is written as in the fixture (see record_keep_rules.py):
statistics and scales by the protocol's names, in lower case and without prefix; no `scale`: the figure as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rule = dict[str, Any]

#: What is computed when blocks are merged; other statistics are kept, and given.
COMPUTED = (
    "distinct_keys",
    "distinct_values",
    "key_similarity",
    "key_difference",
    "value_range",
    "position",
    "random",
)


@dataclass(frozen=True)
class Tokens:
    """Tokens of one head group: first the candidates, then the output's other tokens in full blocks."""

    candidates: int
    #: layer * KV heads + KV head
    group: int
    positions: list[int]
    #: [tokens, head size], before their rotation.
    plain: Array
    #: [tokens, head size], as they are stored.
    keys: Array
    values: Array
    #: Of the candidates, by name.
    kept: dict[str, Array]


def draw(seed: int, position: int, group: int) -> float:
    """Uniform in [0, 1)."""
    h = (seed ^ position * 0x9E3779B1 ^ group * 0x85EBCA77) % 2**32
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return ((h ^ h >> 16) >> 8) / 2**24


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def distinct(vectors: Array, tokens: Tokens) -> list[float]:
    figures = []
    for token in range(tokens.candidates):
        position = tokens.positions[token]
        later = [other for other, place in enumerate(tokens.positions) if place > position]
        highest = max((cosine(vectors[token], vectors[other]) for other in later), default=-1.0)
        figures.append(-round(highest * 1000) / 1000)
    return figures


def figures(name: str, tokens: Tokens, seed: int) -> Array:
    """One statistic of all candidates."""
    count = range(tokens.candidates)
    match name:
        case "distinct_keys":
            return np.array(distinct(tokens.plain, tokens))
        case "distinct_values":
            return np.array(distinct(tokens.values, tokens))
        case "key_similarity":
            keys = tokens.keys
            return np.array([np.mean([cosine(keys[i], keys[j]) for j in count if j != i]) for i in count])
        case "key_difference":
            unit = [tokens.plain[i] / np.sqrt(tokens.plain[i] @ tokens.plain[i]) for i in count]
            mean: Array = np.mean(unit, axis=0)
            return np.array([-cosine(tokens.plain[i], mean) for i in count])
        case "value_range":
            return np.array([tokens.values[i].max() - tokens.values[i].min() for i in count])
        case "position":
            return np.array([float(tokens.positions[i]) for i in count])
        case "random":
            return np.array([draw(seed, tokens.positions[i], tokens.group) for i in count])
        case _:
            return tokens.kept[name]


def pooled(figure: Array, by_position: list[int], window: int) -> Array:
    """Each token takes the highest figure of `window` neighbours, itself in the middle."""
    if window == 0:
        return figure
    result = np.empty_like(figure)
    for place, token in enumerate(by_position):
        near = by_position[max(0, place - window // 2) : place + window // 2 + 1]
        result[token] = max(figure[other] for other in near)
    return result


def scaled(figure: Array, positions: list[int], scale: str | None) -> Array:
    count = len(figure)
    match scale:
        case "rank":
            order = sorted(range(count), key=lambda token: (figure[token], positions[token]))
            return np.array([order.index(token) / count for token in range(count)])
        case "share":
            total = figure.sum()
            return figure / total if total != 0 else np.zeros(count)
        case "softmax":
            powers = np.exp(figure - figure.max())
            softmax: Array = powers / powers.sum()
            return softmax
        case _:
            return figure


def keep(tokens: Tokens, rule: Rule, room: int) -> list[int]:
    """The positions of the candidates that stay, ascending.

    Weights and shares are the float32 numbers that the wire carries. Values are compared as float32, so that sums that
    differ by rounding only are equal.
    """
    positions, seed = tokens.positions[: tokens.candidates], rule["seed"]
    by_position = sorted(range(tokens.candidates), key=lambda token: positions[token])
    taken: list[int] = []
    for stage in rule["stages"]:
        value = np.zeros(tokens.candidates)
        for term in stage["terms"]:
            figure = pooled(figures(term["statistic"], tokens, seed), by_position, term.get("pool", 0))
            value += float(np.float32(term["weight"])) * scaled(figure, positions, term.get("scale"))
        if stage.get("sampled", False):
            u = np.array([draw(seed + 1, position, tokens.group) for position in positions])
            value = np.log(np.maximum(value, 0) + 1e-9) - np.log(-np.log(u + 2**-25))
        left = room - len(taken)
        wanted = left if stage is rule["stages"][-1] else int(np.float32(stage["share"]) * np.float32(room))
        free = [token for token in range(tokens.candidates) if token not in taken]
        free.sort(key=lambda token: (np.float32(value[token]), positions[token]), reverse=True)
        taken += free[: min(left, wanted)]
    return sorted(positions[token] for token in taken)
