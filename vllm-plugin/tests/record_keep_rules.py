"""Writes cases of merges with what they keep: plugin and embedded engine are both compared with them.

    python vllm-plugin/tests/record_keep_rules.py test/fixtures/keep-rules.json

Needs numpy alone. A case whose outcome rounding to float32 could change is left out, and another one is drawn.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from keep_reference import COMPUTED, Array, Rule, Tokens, figures, keep

KEPT = ("attention", "total", "peak", "answer", "window", "last")
SCALES = (None, "rank", "share", "softmax")
THETA = 10_000.0
HEAD_SIZE = 16
#: Rounding errors of engines, relative, and how often they are tried.
NOISE, TRIES = 3e-6, 12


def rotated(plain: Array, positions: list[int]) -> Array:
    """Channel i is paired with channel i + half."""
    angles = np.array(positions)[:, None] * THETA ** (-np.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = np.split(plain, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def draw_tokens(rng: np.random.Generator, candidates: int, others: int) -> Tokens:
    """The same few words again and again, as in a text; most tokens were never read by a probe."""
    count = candidates + others
    words = rng.normal(size=(max(3, count // 3), 2 * HEAD_SIZE))
    vectors = words[rng.integers(len(words), size=count)] + 0.3 * rng.normal(size=(count, 2 * HEAD_SIZE))
    vectors += 0.7 * rng.normal(size=2 * HEAD_SIZE)
    positions = rng.choice(np.arange(40, 40 + 3 * count), count, replace=False).tolist()
    attention = rng.exponential(0.2, size=candidates)
    kept = {
        "attention": attention,
        "total": attention * rng.uniform(1, 3, size=candidates),
        "peak": np.minimum(1, rng.exponential(0.1, size=candidates)),
        "answer": np.where(rng.random(candidates) < 0.3, rng.exponential(0.1, size=candidates), 0),
        "window": rng.exponential(0.05, size=candidates),
        "last": rng.exponential(0.01, size=candidates),
    }
    plain = vectors[:, :HEAD_SIZE].round(4)
    return Tokens(
        candidates=candidates,
        group=int(rng.integers(6)),
        positions=positions,
        plain=plain,
        keys=rotated(plain, positions).round(6),
        values=vectors[:, HEAD_SIZE:].round(4),
        kept={name: figure.round(6) for name, figure in kept.items()},
    )


def draw_rule(rng: np.random.Generator) -> Rule:
    def term() -> dict[str, Any]:
        scale = SCALES[rng.integers(len(SCALES))]
        return {
            "statistic": str(rng.choice(KEPT + COMPUTED)),
            "weight": float(rng.choice([0.3, 0.5, 0.7, 1.0, -0.5])),
            **({} if scale is None else {"scale": scale}),
            "pool": int(rng.choice([0, 0, 1, 3, 7])),
        }

    stages = [
        {
            "share": float(rng.choice([0.1, 0.25, 0.35, 0.7, 1.0])),
            "terms": [term() for _ in range(rng.integers(1, 4))],
            "sampled": bool(rng.random() < 0.2),
        }
        for _ in range(rng.integers(1, 4))
    ]
    return {"stages": stages, "seed": int(rng.integers(2**32))}


def one(statistic: str, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"statistic": statistic, "weight": weight, **more}


def rule(*stages: tuple[float, list[dict[str, Any]]], sampled: bool = False, seed: int = 0) -> Rule:
    """sampled: the last stage is."""
    last = len(stages) - 1
    return {
        "stages": [
            {"share": share, "terms": terms, "sampled": sampled and place == last}
            for place, (share, terms) in enumerate(stages)
        ],
        "seed": seed,
    }


#: Each statistic by itself, each scale, and rules that policies use.
NAMED: dict[str, Rule] = {
    **{name: rule((1.0, [one(name)]), seed=7) for name in KEPT + COMPUTED},
    "pooled": rule((1.0, [one("window", pool=7)])),
    "sum of ranks": rule((1.0, [one("peak", 0.5, scale="rank"), one("distinct_keys", 0.5, scale="rank")])),
    "quota": rule(
        (0.7, [one("attention")]),
        (0.0, [one("peak", 0.5, scale="rank"), one("distinct_keys", 0.5, scale="rank")]),
    ),
    "three ranks": rule(
        (1.0, [one("attention", 0.35, scale="rank"), one("peak", 0.35, scale="rank"), one("last", 0.3, scale="rank")])
    ),
    "answer first": rule(
        (0.35, [one("answer")]),
        (0.35, [one("attention")]),
        (1.0, [one("peak", 0.5, scale="rank"), one("distinct_keys", 0.5, scale="rank")]),
    ),
    "attention less redundancy": rule(
        (1.0, [one("window", 0.1, scale="share", pool=7), one("key_similarity", -0.9, scale="softmax")])
    ),
    "wide values, then drawn": rule(
        (0.25, [one("value_range")]), (1.0, [one("window", scale="share")]), sampled=True, seed=2**32 - 1
    ),
    "drawn where most are zero": rule((1.0, [one("answer", scale="share")]), sampled=True, seed=11),
    "more than the room": rule((1.0, [one("attention")]), (1.0, [one("peak")])),
}


def shaken(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """As an engine's rounding may have them."""

    def shake(x: Array) -> Array:
        return x * (1 + NOISE * rng.uniform(-1, 1, size=x.shape))

    return replace(
        tokens,
        plain=shake(tokens.plain),
        keys=shake(tokens.keys),
        values=shake(tokens.values),
        kept={name: shake(figure) for name, figure in tokens.kept.items()},
    )


def is_certain(tokens: Tokens, rule: Rule, room: int, tries: int = TRIES) -> bool:
    """Whether rounding cannot change what stays."""
    rng = np.random.default_rng(0)
    wanted = keep(tokens, rule, room)
    return all(keep(shaken(tokens, rng), rule, room) == wanted for _ in range(tries))


def main() -> None:
    rng = np.random.default_rng(14)
    sizes = [(12, 0), (24, 8), (36, 12), (48, 16)]
    merges = [draw_tokens(rng, candidates, others) for candidates, others in sizes]
    cases: list[dict[str, Any]] = []
    left_out = 0

    def add(name: str, merge: int, rule: Rule, room: int) -> None:
        nonlocal left_out
        if is_certain(merges[merge], rule, room):
            cases.append({"name": name, "merge": merge, "rule": rule, "room": room})
            cases[-1]["kept"] = keep(merges[merge], rule, room)
        else:
            left_out += 1

    for name, named in NAMED.items():
        for merge, (candidates, _) in enumerate(sizes):
            add(name, merge, named, candidates // 3 if merge % 2 else 2 * candidates // 3)
    # sums that are equal but for rounding, where they decide; a share of .7 of 10, which is 7
    for name in ("sum of ranks", "three ranks", "quota"):
        for room in (10, 13, 20, 23, 26, 30):
            add(name, 3, NAMED[name], room)
    while len(cases) < 180:
        merge = int(rng.integers(len(sizes)))
        candidates = sizes[merge][0]
        add("random", merge, draw_rule(rng), int(rng.integers(1, candidates)))
    missing = set(NAMED) - {case["name"] for case in cases}
    assert not missing, f"no case is certain of {missing}"
    fixture = {
        "about": "What merges keep, by vllm-plugin/tests/keep_reference.py in float64. Of each merge: tokens of one "
        "head group, first the candidates, then the others; keys as stored, rotated by their positions (channel i is "
        "paired with i + half); what is kept of each candidate, and, as figures, what is computed of it (random: with "
        "seed 7). Of each case: how many candidates stay (room), and the positions of those that do. Values are "
        "compared as float32.",
        "command": "python vllm-plugin/tests/record_keep_rules.py test/fixtures/keep-rules.json",
        "theta": THETA,
        "headSize": HEAD_SIZE,
        "merges": [
            {
                "headGroup": tokens.group,
                "candidates": tokens.candidates,
                "positions": tokens.positions,
                "keys": tokens.keys.tolist(),
                "values": tokens.values.tolist(),
                "statistics": {name: figure.tolist() for name, figure in tokens.kept.items()},
                "figures": {name: figures(name, tokens, 7).round(7).tolist() for name in COMPUTED},
            }
            for tokens in merges
        ],
        "cases": cases,
    }
    Path(sys.argv[1]).write_text(compact(fixture))
    sys.stdout.write(f"{len(cases)} cases; {left_out} left out\n")


def compact(fixture: dict[str, Any]) -> str:
    """JSON with a line for each merge and each case."""
    lines = []
    for key, value in fixture.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
