"""Statistics of tokens from rings of queries are those of every query counted by itself, whatever happens meanwhile."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from statistics_reference import NAMES, TokenFigures, weights

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")

from crystal_kv_vllm.attention_weights import Scoring  # noqa: E402
from crystal_kv_vllm.cache_stack import CacheLayer, stack_layers  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.keep_rule import KEPT_STATISTICS, KeepRule, KeepStage, KeepTerm  # noqa: E402
from crystal_kv_vllm.kept_statistics import CountedQueries, KeptStatistics  # noqa: E402
from crystal_kv_vllm.merger import Merger  # noqa: E402
from crystal_kv_vllm.token_statistics import TokenStatistics  # noqa: E402
from crystal_kv_vllm.worker_io import MergeCommand, TableEntry  # noqa: E402

LAYERS, HEADS, GROUP, WIDTH = 3, 2, 3, 8
SIZE, SPLIT = 8, 2
BLOCKS = 90
HALF_LIVES = (40.0, 90.0)
KEPT = KeptStatistics(tuple(sorted(KEPT_STATISTICS)), *HALF_LIVES)
SCALE = WIDTH**-0.5
#: A token of a head group: layer, KV head, position.
Place = tuple[int, int, int]
Figures = dict[Place, TokenFigures]


@dataclass
class Simulated:
    """A request or a probe, as vLLM would run it."""

    name: str
    prompt: int
    tokens: int = 0
    row: list[int] = field(default_factory=list)
    #: Blocks of the row that the worker knows.
    known: int = 0
    counted_from: int = 0
    #: Keys by place, and the figures of the reference.
    keys: dict[Place, Any] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)
    #: By head group: the positions in each block, -1 where nothing was written.
    held: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)
    parent: "Simulated | None" = None
    shared: int = 0
    #: Tokens up to its newest query that counted.
    told: int = 0
    #: Of a probe: its queries that counted, with layer and position. Of a request: its newest probe that had any.
    asking: list[tuple[int, int, Any]] = field(default_factory=list)
    probe: "Simulated | None" = None
    asked_up_to: int = 0


class World:
    """A worker's part and the reference, side by side."""

    def __init__(self, seed: int, ring: int, softcap: float, sinks: bool, layout: str) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.softcap = softcap
        self.sinks = torch.randn(LAYERS, HEADS, GROUP, generator=self.generator) if sinks else None
        shape = (LAYERS, BLOCKS * SPLIT, HEADS, SIZE // SPLIT, WIDTH)
        # what was never written may hold anything
        self.keys, self.values = (torch.full(shape, float("nan")) for _ in "kv")
        layers = []
        for number in range(LAYERS):
            scoring = Scoring(SCALE, softcap, None if self.sinks is None else self.sinks[number])
            keys, values = self.keys[number], self.values[number]
            if layout == "one by one":
                keys, values = keys.clone(), values.clone()
            layers.append(CacheLayer(str(number), keys, values, None, scoring))
        self.layers = layers
        stacks = stack_layers(layers)
        assert len(stacks) == (LAYERS if layout == "one by one" else 1)
        self.statistics = TokenStatistics(stacks, SIZE, ring)
        self.merger = Merger(stacks)
        self.statistics.keep(KEPT)
        self.free = list(range(1, BLOCKS))

    def store(self, layer: int, head: int, block: int, slot: int, key: Any) -> None:
        at = (block * SPLIT + slot // (SIZE // SPLIT), head, slot % (SIZE // SPLIT))
        self.layers[layer].keys[at] = key
        self.layers[layer].values[at] = key

    def step(self, scheduled: dict[str, tuple[Simulated, int]], follow: bool = True) -> None:
        """Computes so many tokens of each request; counts their queries unless nobody is attached."""
        queries: dict[str, CountedQueries] = {}
        for name, (it, count) in scheduled.items():
            while len(it.row) * SIZE < it.tokens + count:
                it.row.append(self.free.pop())
                for held in it.held.values():
                    held.append([-1] * SIZE)
            if follow and it.tokens + count > it.counted_from:
                owner = it.parent or it
                queries[name] = CountedQueries(
                    it.tokens,
                    count,
                    it.counted_from,
                    (owner.prompt // SIZE, 1 << 31 if it.parent is None else it.shared),
                    it.known,
                    tuple(it.row[it.known :]),
                    None if it.parent is None else it.parent.name,
                )
                it.known = len(it.row)
        step = self.statistics.follow(queries)
        order = sorted(scheduled.values(), key=lambda entry: entry[0].parent is not None)
        for it, count in order:
            self._compute(it, count, step, it.name in queries)

    def _compute(self, it: Simulated, count: int, step: Any, counts: bool) -> None:
        new = range(it.tokens, it.tokens + count)
        it.tokens += count
        computed = torch.randn(LAYERS, count, HEADS, GROUP, WIDTH, generator=self.generator) * 2
        for layer in range(LAYERS):
            for position in new:
                for head in range(HEADS):
                    key = torch.randn(WIDTH, generator=self.generator)
                    it.keys[layer, head, position] = key.double().numpy()
                    it.held[layer, head][position // SIZE][position % SIZE] = position
                    it.figures[layer, head, position] = TokenFigures()
                    self.store(layer, head, it.row[position // SIZE], position % SIZE, key)
            if step is not None and it.name in step.copies:
                first, places = step.copies[it.name]
                step.store(str(layer), computed[layer, first:], torch.tensor(places))
            elif step is not None and it.name in step.long:
                step.count(str(layer), it.name, computed[layer, step.long[it.name] :])
            if counts:
                for offset, position in enumerate(new):
                    if position >= it.counted_from:
                        it.told = position + 1
                        self._query(it, layer, position, computed[layer, offset])

    def _query(self, it: Simulated, layer: int, position: int, heads: Any) -> None:
        if it.parent is not None:
            it.asking.append((layer, position, heads))
        for head in range(HEADS):
            seen = [p for block in it.held[layer, head] for p in block if 0 <= p <= position]
            keys = np.array([it.keys[layer, head, p] for p in seen])
            sinks = None if self.sinks is None else self.sinks[layer, head].double().numpy()
            given = weights(heads[head].double().numpy(), keys, SCALE, self.softcap, sinks)
            for p, each in zip(seen, given.T, strict=True):
                if it.parent is None:
                    it.figures[layer, head, p].query(position, float(each.mean()), float(each.max()), HALF_LIVES)
                elif p < it.shared * SIZE and p in range(it.parent.prompt // SIZE * SIZE, it.tokens):
                    it.parent.figures[layer, head, p].probe(float(each.max()))

    def _ask(self, it: Simulated, into: list[int], from_: list[int]) -> None:
        """Keys and queries are random and have no positions: so nothing turns."""
        probe = it.probe
        if probe is None or (max(*into, *from_) + 1) * SIZE <= it.asked_up_to:
            return
        it.asked_up_to = it.told
        for layer, position, heads in probe.asking:
            for head in range(HEADS):
                seen = [p for block in it.held[layer, head] for p in block if 0 <= p < it.told]
                own = range(probe.counted_from, position + 1)
                keys = [it.keys[layer, head, p] for p in seen] + [probe.keys[layer, head, p] for p in own]
                sinks = None if self.sinks is None else self.sinks[layer, head].double().numpy()
                given = weights(heads[head].double().numpy(), np.array(keys), SCALE, self.softcap, sinks)
                for p, each in zip(seen, given.T[: len(seen)], strict=True):
                    if p >= it.prompt // SIZE * SIZE:
                        it.figures[layer, head, p].asked(float(each.max()))

    def begin(self, name: str, prompt: int) -> Simulated:
        it = Simulated(name, prompt, counted_from=prompt)
        it.held = {(layer, head): [] for layer in range(LAYERS) for head in range(HEADS)}
        return it

    def fork(self, parent: Simulated, suffix: int) -> tuple[Simulated, int]:
        """A probe, and how many tokens its first step computes."""
        probe = self.begin(f"probe of {parent.name}", parent.tokens + suffix)
        probe.parent, probe.counted_from = parent, parent.tokens
        probe.shared = parent.tokens // SIZE
        probe.row = parent.row[: probe.shared]
        probe.tokens = probe.shared * SIZE
        probe.keys, probe.figures = dict(parent.keys), dict(parent.figures)
        probe.held = {group: [list(block) for block in held[: probe.shared]] for group, held in parent.held.items()}
        return probe, parent.tokens + suffix - probe.tokens

    def end(self, it: Simulated) -> None:
        self.statistics.forget([it.name])
        self.merger.forget([it.name])
        if it.parent is not None and it.asking:
            it.parent.probe, it.parent.asked_up_to = it, it.shared * SIZE
        self.free += [block for block in it.row[it.shared :] if block]

    def merge(self, it: Simulated, into: list[int], from_: list[int], rule: KeepRule) -> None:
        self.statistics.settle([it.name])
        entries, given = ([TableEntry(b, it.row[b]) for b in blocks] for blocks in (into, from_))
        command = MergeCommand(entries, given, [], SIZE, rule)
        if rule is ANSWER:
            self._ask(it, into, from_)
        self.merger.merge(it.name, command, self.statistics.of_merges([(it.name, command)]))
        blocks = [TableEntry(b * SPLIT + i, it.row[b] * SPLIT + i) for b in into for i in range(SPLIT)]
        for number, first in zip(range(len(self.statistics._slots)), range(LAYERS), strict=False):
            positions = self.merger.positions(it.name, number, blocks).view(-1, HEADS, len(into), SIZE)
            for layer in range(len(positions)):
                for head in range(HEADS):
                    for place, block in enumerate(into):
                        it.held[first + layer, head][block] = positions[layer, head, place].tolist()
        self.punch(it, from_)

    def evict(self, it: Simulated, blocks: list[int]) -> None:
        self.statistics.settle([it.name])
        self.punch(it, blocks)

    def punch(self, it: Simulated, blocks: list[int]) -> None:
        self.statistics.punch({it.name: blocks})
        for block in blocks:
            self.free.insert(0, it.row[block])
            it.row[block] = 0
            for held in it.held.values():
                held[block] = [-1] * SIZE

    def check(self, it: Simulated) -> int:
        """Returns how many figures were compared."""
        self.statistics.settle([it.name, f"probe of {it.name}"])
        outputs = [b for b in range(it.prompt // SIZE, it.known) if it.row[b]]
        if not outputs:
            return 0
        ids = torch.tensor([it.row[b] * SPLIT + i for b in outputs for i in range(SPLIT)])
        got = []
        for slots in self.statistics._slots:
            figures = slots.figures(slots.read(slice(0, LAYERS), ids))
            rows = [figures[pb.Statistic.Value(f"STATISTIC_{name.upper()}")] for name in NAMES]
            got.append(torch.stack(rows, -1).view(-1, HEADS, len(outputs), SIZE, len(NAMES)))
        compared = 0
        for (layer, head, place, slot), values in np.ndenumerate(np.zeros((LAYERS, HEADS, len(outputs), SIZE))):
            position = it.held[layer, head][outputs[place]][slot]
            if position >= 0:
                values = torch.cat(got)[layer, head, place, slot].tolist()
                wanted = it.figures[layer, head, position].all()
                assert values == pytest.approx(wanted, rel=2e-4, abs=1e-6), (it.name, layer, head, position)
                compared += sum(value > 0 for value in wanted)
        return compared


RANDOM_ATTENTION = KeepRule(
    (
        KeepStage(0.5, (KeepTerm(pb.STATISTIC_ATTENTION, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),
        KeepStage(1.0, (KeepTerm(pb.STATISTIC_RANDOM, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),
    ),
    seed=3,
)


ANSWER = KeepRule(
    (
        KeepStage(0.5, (KeepTerm(pb.STATISTIC_ANSWER, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),
        KeepStage(1.0, (KeepTerm(pb.STATISTIC_RANDOM, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),
    ),
    seed=5,
)


@pytest.mark.parametrize(
    ("ring", "softcap", "sinks", "layout"),
    [(1, 0.0, False, "stacked"), (7, 2.0, False, "stacked"), (16, 0.0, True, "one by one"), (64, 0.0, True, "stacked")],
)
def test_every_query_counts_once_through_merges_holes_probes_and_long_chunks(
    ring: int, softcap: float, sinks: bool, layout: str
) -> None:
    world = World(ring, ring, softcap, sinks, layout)
    rng = world.random
    live: list[Simulated] = []
    probes: list[tuple[Simulated, int]] = []
    number = compared = merges = forks = 0
    for _ in range(150):
        if len(live) < 3 and rng.random() < 0.3:
            number += 1
            it = world.begin(f"r{number}", rng.choice([3, 8, 13]))
            # a recomputation begins with many tokens of output in one chunk
            chunk = it.prompt + rng.choice([0, 0, 5, 30])
            world.step({it.name: (it, chunk)})
            live.append(it)
        for it in live:
            own = [b for b in range(-(-it.prompt // SIZE), it.tokens // SIZE) if it.row[b]]
            probed = any(probe.parent is it for probe, _ in probes)
            if len(own) >= 4 and not probed and rng.random() < 0.25:
                chosen = rng.sample(own, 3)
                if rng.random() < 0.6:
                    world.merge(it, sorted(chosen[:2]), chosen[2:], rng.choice([RANDOM_ATTENTION, ANSWER]))
                    merges += 1
                else:
                    world.evict(it, chosen[:1])
            elif not probed and own and rng.random() < 0.1:
                probe, first = world.fork(it, 2)
                forks += 1
                probes.append((probe, 6))
                world.step({it.name: (it, 1), probe.name: (probe, first)})
        scheduled = {it.name: (it, rng.choice([1, 1, 1, 2])) for it in live if rng.random() < 0.9}
        scheduled |= {probe.name: (probe, 1) for probe, _ in probes}
        if scheduled:
            world.step(scheduled, follow=rng.random() < 0.95)
        probes = [(probe, left - 1) for probe, left in probes]
        for probe, left in list(probes):
            if left == 0:
                world.end(probe)
                probes.remove((probe, left))
        for it in list(live):
            if rng.random() < 0.1:
                compared += world.check(it)
            if it.tokens > 90 and not any(probe.parent is it for probe, _ in probes):
                compared += world.check(it)
                world.end(it)
                live.remove(it)
    assert min(compared // 1000, merges, forks) > 3


def test_what_is_kept_changes_without_losing_what_stays() -> None:
    world = World(2, 8, 0.0, sinks=False, layout="stacked")
    it = world.begin("a", 8)
    world.step({"a": (it, 8)})
    for _ in range(13):
        world.step({"a": (it, 1)})
    total = KeptStatistics((pb.STATISTIC_TOTAL,), *HALF_LIVES)
    both = KeptStatistics((pb.STATISTIC_TOTAL, pb.STATISTIC_LAST), *HALF_LIVES)
    for kept in (total, both):
        world.statistics.keep(kept)
    (slots,) = world.statistics._slots
    figures = slots.figures(slots.read(slice(0, LAYERS), torch.tensor([it.row[1] * SPLIT])))
    wanted = [it.figures[0, 0, position].total for position in range(8, 12)]
    assert figures[pb.STATISTIC_TOTAL][0].tolist() == pytest.approx(wanted, rel=1e-4)
    assert not figures[pb.STATISTIC_LAST].any()
    world.statistics.keep(None)
    assert world.statistics.follow({"a": CountedQueries(21, 1, 8, (1, 99), 0, tuple(it.row))}) is None
