"""What counting queries, and asking those of a probe again, cost on a GPU; tensors are fake, as in test_merge_cost."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")

from device_operations import DeviceOperations, fake_gpu  # noqa: E402

from crystal_kv_vllm.attention_weights import Scoring, max_scores  # noqa: E402
from crystal_kv_vllm.cache_stack import CacheStack  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.keep_rule import KeepRule, KeepStage, KeepTerm  # noqa: E402
from crystal_kv_vllm.kept_statistics import CountedQueries, KeptStatistics  # noqa: E402
from crystal_kv_vllm.rotation import Rotation  # noqa: E402
from crystal_kv_vllm.token_statistics import TokenStatistics  # noqa: E402
from crystal_kv_vllm.worker_io import MergeCommand, TableEntry  # noqa: E402

LAYERS, HEADS, GROUP, WIDTH, SIZE, RING = 32, 8, 4, 128, 16, 32
PROMPT, TOKENS, ANSWERS = 64, 4096, 12
ANSWER = KeepRule((KeepStage(1.0, (KeepTerm(pb.STATISTIC_ANSWER, 1.0, pb.SCALE_UNSPECIFIED, 0),), False),), seed=0)


def step(statistics: TokenStatistics, name: str, queries: CountedQueries) -> None:
    """Computes the queries of a step, in all layers."""
    counted = statistics.follow({name: queries})
    assert counted is not None
    first, places = counted.copies[name]
    computed = torch.empty(queries.count - first, HEADS, GROUP, WIDTH, dtype=torch.bfloat16, device="cuda")
    for layer in range(LAYERS):
        counted.store(str(layer), computed, torch.tensor(list(places), device="cuda"))


def test_a_ring_and_a_probe_are_counted_in_few_passes_without_a_wait() -> None:
    with fake_gpu() as gpu:
        pool = TOKENS // SIZE + 8
        cache = torch.empty(LAYERS, pool, HEADS, SIZE, 2 * WIDTH, dtype=torch.bfloat16, device=gpu)
        rotation = Rotation(torch.empty(2 * TOKENS, WIDTH, device=gpu), halves=True)
        scoring = Scoring(0.1, 0.0, None)
        stack = CacheStack(tuple(map(str, range(LAYERS))), 0, cache[..., :WIDTH], cache[..., WIDTH:], rotation, scoring)
        statistics = TokenStatistics([stack], SIZE, RING)
        statistics.keep(KeptStatistics((pb.STATISTIC_ATTENTION, pb.STATISTIC_ANSWER), 40.0, 90.0))
        row = tuple(range(1, TOKENS // SIZE + 1))
        outputs = (PROMPT // SIZE, 1 << 31)
        step(statistics, "a", CountedQueries(TOKENS - RING, RING, PROMPT, outputs, 0, row))
        shared = row[: TOKENS // SIZE - 1]
        probe = CountedQueries(
            len(shared) * SIZE, SIZE + ANSWERS, TOKENS, (outputs[0], len(shared)), 0, (*shared, 260, 261), parent="a"
        )
        step(statistics, "probe", probe)
        with DeviceOperations() as ring:
            statistics.settle(["a"])
        with DeviceOperations() as asked:
            statistics.forget(["probe"])
        command = MergeCommand([TableEntry(4, 5)], [TableEntry(TOKENS // SIZE - 1, TOKENS // SIZE)], [], SIZE, ANSWER)
        with DeviceOperations() as again:
            statistics.of_merges([("a", command)])
        held = 4 * max_scores(gpu)
        # a pass holds the scores of some layers for the ring, and the keys of more for a probe's few queries
        scores = HEADS * RING * GROUP * TOKENS
        passes = -(-LAYERS // (max_scores(gpu) // scores))
        assert passes < LAYERS
        assert ring.count < 40 * passes
        assert asked.count < 160
        assert 0 < again.count < 120
        assert max(it.largest_bytes for it in (ring, asked, again)) <= held


def test_a_probe_that_no_rule_asks_again_keeps_no_queries() -> None:
    with fake_gpu() as gpu:
        cache = torch.empty(LAYERS, 16, HEADS, SIZE, 2 * WIDTH, dtype=torch.bfloat16, device=gpu)
        stack = CacheStack(
            tuple(map(str, range(LAYERS))), 0, cache[..., :WIDTH], cache[..., WIDTH:], None, Scoring(0.1, 0.0, None)
        )
        for kept, keeps in ((pb.STATISTIC_PEAK, False), (pb.STATISTIC_ANSWER, True)):
            statistics = TokenStatistics([stack], SIZE, RING)
            statistics.keep(KeptStatistics((kept,), 40.0, 90.0))
            step(statistics, "a", CountedQueries(SIZE, 4, SIZE, (1, 1 << 31), 0, (1, 2)))
            step(statistics, "probe", CountedQueries(SIZE, 8, 20, (1, 1), 0, (1, 3), parent="a"))
            statistics.forget(["probe"])
            assert bool(statistics._followed["a"].answers) == keeps
