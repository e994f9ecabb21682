"""What merges cost on a GPU: operations, waits and memory. Tensors are fake ones there, so nothing is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")
pytest.importorskip("triton")

from device_operations import DeviceOperations, fake_gpu  # noqa: E402
from test_merge import HEADS, LAYERS, SIZE, by, caches, entries  # noqa: E402

from crystal_kv_vllm.cache_stack import CacheStack, stack_layers  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.keep_rule import MOST_DISTINCT, KeepRule, KeepStage, KeepTerm  # noqa: E402
from crystal_kv_vllm.kept_statistics import KeptStatistics  # noqa: E402
from crystal_kv_vllm.merge_candidates import MAX_COPIED  # noqa: E402
from crystal_kv_vllm.merger import Merger  # noqa: E402
from crystal_kv_vllm.rotation import Rotation  # noqa: E402
from crystal_kv_vllm.slot_statistics import SlotStatistics  # noqa: E402
from crystal_kv_vllm.worker_io import MergeCommand, TableEntry  # noqa: E402

#: As `crystal` merges a request that was probed.
CRYSTAL = KeepRule(
    (
        KeepStage(0.5, (KeepTerm(pb.STATISTIC_ANSWER, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),
        KeepStage(0.25, (KeepTerm(pb.STATISTIC_ATTENTION, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),
        KeepStage(
            1.0,
            (
                KeepTerm(pb.STATISTIC_PEAK, 0.5, pb.SCALE_RANK, 0),
                KeepTerm(pb.STATISTIC_DISTINCT_KEYS, 0.5, pb.SCALE_RANK, 0),
            ),
            sampled=False,
        ),
    ),
    seed=0,
)


@dataclass
class Merging:
    """On a model of 64 layers with 8 KV heads of 128, in blocks of 16: 64 blocks become 63."""

    merger: Merger
    slots: list[SlotStatistics]
    command: MergeCommand


@contextmanager
def merging(tokens: int) -> Iterator[Merging]:
    """tokens: of the output."""
    with fake_gpu() as gpu:
        blocks = tokens // 16
        cache = torch.empty(64, blocks + 1, 8, 16, 256, dtype=torch.bfloat16, device=gpu)
        rotation = Rotation(torch.empty(tokens, 128, device=gpu), halves=True)
        stack = CacheStack(tuple(map(str, range(64))), 0, cache[..., :128], cache[..., 128:], rotation)
        kept = KeptStatistics((pb.STATISTIC_ATTENTION, pb.STATISTIC_PEAK, pb.STATISTIC_ANSWER), 40.0, 90.0)
        row = [TableEntry(index, index + 1) for index in range(blocks)]
        command = MergeCommand(row[:63], row[63:64], row[64:], 16, CRYSTAL)
        yield Merging(Merger([stack]), [SlotStatistics(stack, kept)], command)


@pytest.mark.parametrize(("tokens", "requests", "most"), [(8192, 1, 100), (8192, 8, 320), (102_400, 1, 100)])
def test_a_merge_is_one_batch_over_all_layers_and_heads_and_never_waits(tokens: int, requests: int, most: int) -> None:
    with merging(tokens) as it, DeviceOperations() as operations:
        # an operation that needs a number from the device raises here
        it.merger.merge_all([(str(number), it.command) for number in range(requests)], it.slots)
    assert 20 < operations.count < most
    # a few of these are alive at the same time
    assert operations.largest_bytes <= 4 * MAX_COPIED


def test_fake_tensors_show_a_wait() -> None:
    with fake_gpu() as gpu, pytest.raises(Exception, match=r"aten\.nonzero"):
        torch.empty(4, device=gpu).nonzero()


def test_the_length_of_an_output_takes_no_memory() -> None:
    largest = []
    for tokens in (8192, 102_400):
        with merging(tokens) as it, DeviceOperations() as operations:
            it.merger.merge("a", it.command, it.slots)
        largest.append((operations.largest_bytes, operations.count))
    assert largest[0] == largest[1]


def test_on_a_cpu_tokens_beside_are_compared_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for others in (1024, SIZE):
        monkeypatch.setattr("crystal_kv_vllm.merge_candidates.MAX_OTHERS", others)
        layers = caches("by token")
        command = MergeCommand(entries(0, 1), entries(2), entries(3, 4, 5, 6, 7), SIZE, MOST_DISTINCT)
        Merger(stack_layers(layers)).merge("a", command)
        kept.append([layer.values.clone() for layer in layers])
    assert all(torch.equal(*pair) for pair in zip(*kept, strict=True))


def _alike() -> list[tuple[str, MergeCommand]]:
    def command(into: int, given: int, beside: list[int], rule: KeepRule) -> MergeCommand:
        return MergeCommand(entries(into), entries(given), entries(*beside), SIZE, rule)

    random = by(pb.STATISTIC_RANDOM)
    return [
        ("a", command(0, 1, [2, 3], MOST_DISTINCT)),
        ("b", command(4, 5, [], MOST_DISTINCT)),
        ("c", command(6, 7, [], random)),
        ("d", command(8, 9, [], KeepRule(random.stages, seed=5))),
    ]


@pytest.mark.parametrize("layout", ["by token", "by column", "one by one"])
def test_merges_together_are_what_they_are_one_after_the_other(layout: str) -> None:
    results: list[list[Any]] = []
    for together in (True, False):
        layers = caches(layout)
        stacks = stack_layers(layers)
        merger = Merger(stacks)
        slots = [SlotStatistics(stack, KeptStatistics((pb.STATISTIC_TOTAL,), 9.0, 9.0)) for stack in stacks]
        every = torch.arange(LAYERS * 10 * HEADS * SIZE).view(1, LAYERS, 10, HEADS, SIZE).float()
        for stack, of in zip(stacks, slots, strict=True):
            of._numbers[:] = every[:, stack.first : stack.first + len(stack.layers)]
        if together:
            merger.merge_all(_alike(), slots)
        else:
            for name, command in _alike():
                merger.merge(name, command, slots)
        result = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        result += [of._numbers for of in slots]
        result += [merger.positions(name, 0, command.into) for name, command in _alike()]
        results.append(result)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
