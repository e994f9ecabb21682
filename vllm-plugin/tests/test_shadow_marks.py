"""Shadow merges mark what real ones drop, and what queries give to marked tokens is their attention, added up."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
from statistics_reference import weights as reference_weights

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")

from crystal_kv_vllm.attention_weights import Scoring  # noqa: E402
from crystal_kv_vllm.cache_stack import CacheLayer, stack_layers  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.keep_rule import (  # noqa: E402
    COMPUTED_STATISTICS,
    KEPT_STATISTICS,
    KeepRule,
    KeepStage,
    KeepTerm,
)
from crystal_kv_vllm.kept_statistics import KeptStatistics  # noqa: E402
from crystal_kv_vllm.masses import select_rows  # noqa: E402
from crystal_kv_vllm.merger import Merger  # noqa: E402
from crystal_kv_vllm.shadow_marks import ShadowMarks  # noqa: E402
from crystal_kv_vllm.slot_statistics import SlotStatistics  # noqa: E402
from crystal_kv_vllm.worker_io import MergeCommand, ShadowCommand, TableEntry  # noqa: E402

LAYERS, HEADS, GROUP, WIDTH = 3, 2, 3, 8
#: Of the scheduler, and how many blocks of the attention kernel it is.
SIZE, SPLIT = 8, 2
BLOCKS = 40
SCALE = WIDTH**-0.5
#: Logical blocks: the prompt has two, block 5 is a hole in some tests; later merges name blocks that took others in.
MERGES = [([4], [2, 3], [6, 7, 8, 9]), ([6, 8], [4, 7], [9]), ([8], [6], [9])]
TOKENS = 10 * SIZE + 3


def rule(statistic: "pb.Statistic.ValueType") -> KeepRule:
    return KeepRule(
        (
            KeepStage(0.5, (KeepTerm(statistic, 1.0, pb.SCALE_RANK, 0),), sampled=False),
            KeepStage(1.0, (KeepTerm(statistic, 1.0, pb.SCALE_UNSPECIFIED, 3),), sampled=False),
        ),
        seed=7,
    )


@dataclass
class Worker:
    """The caches of one request, of random keys; logical block i is the scheduler's block 30 - i."""

    layers: list[CacheLayer]
    merger: Merger
    marks: ShadowMarks
    statistics: list[SlotStatistics]
    row: list[int]

    @classmethod
    def make(cls, layout: str, hole: bool, softcap: float = 0.0, sinks: bool = False) -> "Worker":
        torch.manual_seed(3)
        shape = (LAYERS, BLOCKS * SPLIT, HEADS, SIZE // SPLIT, WIDTH)
        keys, values = torch.randn(shape), torch.randn(shape)
        of_sinks = torch.randn(LAYERS, HEADS, GROUP)
        layers = []
        for number in range(LAYERS):
            scoring = Scoring(SCALE, softcap, of_sinks[number] if sinks else None)
            some = keys[number], values[number]
            if layout == "one by one":
                some = some[0].clone(), some[1].clone()
            layers.append(CacheLayer(str(number), *some, None, scoring))
        stacks = stack_layers(layers)
        assert len(stacks) == (LAYERS if layout == "one by one" else 1)
        kept = KeptStatistics(tuple(sorted(KEPT_STATISTICS)), 40.0, 90.0)
        statistics = [SlotStatistics(stack, kept) for stack in stacks]
        whole = torch.rand(len(statistics[0]._numbers), LAYERS, BLOCKS * SPLIT, HEADS, SIZE // SPLIT)
        for stack, slots in zip(stacks, statistics, strict=True):
            slots._numbers[:] = whole[:, stack.first : stack.first + len(stack.layers)]
        merger = Merger(stacks)
        row = [0 if hole and index == 5 else 30 - index for index in range(-(-TOKENS // SIZE))]
        return cls(layers, merger, ShadowMarks(stacks, merger), statistics, row)

    def entries(self, indices: list[int]) -> list[TableEntry]:
        return [TableEntry(index, self.row[index]) for index in indices if self.row[index]]

    def command(self, into: list[int], given: list[int], beside: list[int], by: KeepRule) -> MergeCommand:
        return MergeCommand(self.entries(into), self.entries(given), self.entries(beside), SIZE, by)

    def shadow(self, merges: list[MergeCommand], evict: list[int] | None = None, begin: bool = False) -> None:
        holes = [index for index, block in enumerate(self.row) if not block]
        full = self.entries(list(range(2, 10)))
        command = ShadowCommand(begin, evict or [], merges, full, holes, SIZE, read_share=0.02)
        self.marks.mark("a", command, self.statistics)

    def held(self, indices: list[int]) -> list[set[int]]:
        """Positions of the tokens in some blocks, of each head group."""
        kernel = [
            TableEntry(index * SPLIT + part, self.row[index] * SPLIT + part)
            for index in indices
            if self.row[index]
            for part in range(SPLIT)
        ]
        parts = [self.merger.positions("a", number, kernel) for number in range(len(self.statistics))]
        return [set(group) for group in torch.cat(parts).tolist()]

    def marked(self) -> list[set[int]]:
        parts = [self.marks.marked("a", number) for number in range(len(self.statistics))]
        return [set(group.nonzero().flatten().tolist()) for part in parts for group in part]


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("layout", ["in one", "one by one"])
@pytest.mark.parametrize("statistic", sorted(KEPT_STATISTICS | COMPUTED_STATISTICS))
def test_marks_are_what_real_merges_drop_one_after_the_other(
    statistic: "pb.Statistic.ValueType", layout: str, hole: bool
) -> None:
    real, marking = Worker.make(layout, hole), Worker.make(layout, hole)
    output = list(range(2, 10))
    whole = real.held(output)
    caches = [(layer.keys.clone(), layer.values.clone()) for layer in marking.layers]
    for into, given, beside in MERGES:
        real.merger.merge("a", real.command(into, given, beside, rule(statistic)), real.statistics)
        for index in given:
            real.row[index] = 0
        marking.shadow([marking.command(into, given, beside, rule(statistic))])
        dropped = [before - after for before, after in zip(whole, real.held(output), strict=True)]
        assert marking.marked() == dropped
        assert all(dropped)
    for layer, (keys, values) in zip(marking.layers, caches, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    if statistic not in (pb.STATISTIC_POSITION,):
        assert len({tuple(sorted(group)) for group in marking.marked()}) > 1, "each head group drops its own"


def test_an_eviction_takes_what_the_block_would_hold_and_marks_can_begin_anew() -> None:
    worker = Worker.make("in one", hole=False)
    worker.shadow([worker.command([3], [2], [], rule(pb.STATISTIC_TOTAL))])
    assert all(len(group) == SIZE for group in worker.marked())
    worker.shadow([], evict=[3])
    assert worker.marked() == [set(range(2 * SIZE, 4 * SIZE))] * (LAYERS * HEADS)
    worker.shadow([], evict=[6], begin=True)
    assert worker.marked() == [set(range(6 * SIZE, 7 * SIZE))] * (LAYERS * HEADS)
    worker.marks.forget(["a"])
    worker.shadow([], evict=[7])
    assert worker.marked() == [set(range(7 * SIZE, 8 * SIZE))] * (LAYERS * HEADS)


def test_a_plan_may_mark_nothing_of_a_request_without_full_blocks() -> None:
    worker = Worker.make("in one", hole=False)
    worker.marks.mark("a", ShadowCommand(True, [], [], [], [], SIZE, read_share=0.1), worker.statistics)
    assert worker.marked() == [set()] * (LAYERS * HEADS)
    rows = select_rows([(0, "a")], torch.tensor([[60]]), torch.tensor([2]), torch.tensor([0, 1]), SIZE // SPLIT)
    assert rows is not None
    queries = {str(layer): torch.randn(1, HEADS, GROUP, WIDTH) for layer in range(LAYERS)}
    _, figures = worker.marks.reads(rows, queries, [("0", 0)])
    assert figures is not None
    assert figures.tolist() == [[0, 0]]


@pytest.mark.parametrize(("softcap", "sinks"), [(0.0, False), (4.0, True)])
@pytest.mark.parametrize("layout", ["in one", "one by one"])
@pytest.mark.parametrize("hole", [False, True])
def test_what_queries_give_to_marked_tokens_equals_a_float64_reference(
    hole: bool, layout: str, softcap: float, sinks: bool
) -> None:
    worker = Worker.make(layout, hole, softcap, sinks)
    for into, given, beside in MERGES:
        worker.shadow([worker.command(into, given, beside, rule(pb.STATISTIC_RANDOM))])
    marked = worker.marked()
    measured = [("0", 1), ("2", 0), ("2", 1)]
    read: set[tuple[int, int]] = set()
    rng = random.Random(5)
    for _ in range(20):
        tokens = rng.choice([TOKENS, TOKENS - 2])
        kernel = [block * SPLIT + part for block in worker.row if block for part in range(SPLIT)]
        resident = tokens - (SIZE if hole else 0)
        table = torch.tensor([[0] * len(kernel), kernel])
        lengths, starts = torch.tensor([1, resident]), torch.tensor([0, 1, 2])
        rows = select_rows([(0, "other"), (1, "a")], table, lengths, starts, SIZE // SPLIT)
        queries = {str(layer): 3 * torch.randn(2, HEADS, GROUP, WIDTH) for layer in (0, 2)}
        assert rows is not None
        names, figures = worker.marks.reads(rows, queries, measured)
        assert names == ["a"]
        missed, fresh = [], 0
        for name, head in measured:
            layer = worker.layers[int(name)]
            keys = layer.keys[kernel, head].flatten(0, 1)[:resident].double().numpy()
            scoring = layer.scoring
            assert scoring is not None
            of_sinks = None if scoring.sinks is None else scoring.sinks[head].double().numpy()
            query = queries[name][1, head].double().numpy()
            shares = np.array(reference_weights(query, keys, SCALE, softcap, of_sinks)).mean(0)
            positions = [it for it in range(tokens) if not (hole and it // SIZE == 5)]
            group = int(name) * HEADS + head
            on_marked = {at: share for at, share in zip(positions, shares, strict=True) if at in marked[group]}
            missed.append(sum(on_marked.values()))
            new = {(group, at) for at, share in on_marked.items() if share >= 0.02} - read
            read |= new
            fresh += len(new)
        assert figures is not None
        assert figures[0].tolist() == pytest.approx([np.mean(missed), fresh], abs=1e-5)
    assert len(read) > 10
