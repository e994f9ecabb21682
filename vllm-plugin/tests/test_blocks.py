"""No block is lost, freed twice or used by two: random arrivals, evictions, aborts, preemptions and probes."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from engine import RunningEngine, prompt
from scripted_peer import ATTENTION, BY_ATTENTION, keep_at_most, merge_of
from vllm import SamplingParams

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.outbox import Outbox

pytestmark = pytest.mark.vllm

SEQUENCES = 250
POOL = 16


def check_pool(engine: RunningEngine) -> None:
    """Every block is free or used, as often as it stands in rows."""
    used: Counter[int] = Counter()
    for row in engine.manager.req_to_blocks.values():
        used.update(block.block_id for block in row if not block.is_null)
    free = [block.block_id for block in engine.pool.free_block_queue.get_all_free_blocks()]
    assert len(set(free)) == len(free) == engine.pool.get_num_free_blocks()
    assert not set(free) & set(used)
    for block in engine.pool.blocks[1:]:
        assert block.ref_cnt == used[block.block_id]
        assert (block.block_id in used) != (block.block_id in set(free))


def random_plan(rng: random.Random, engine: RunningEngine) -> pb.Plan:
    hooks = engine.hooks
    requests = []
    for tracked in [*hooks.live.requests, *hooks.live.probes]:
        if rng.random() < 0.4:
            blocks = rng.sample(range(9), rng.randrange(6))
            epoch = tracked.epoch + (rng.random() < 0.1)
            # most of them possible: two or more of the blocks that hold output
            first = -(-tracked.request.num_prompt_tokens // engine.manager.block_size)
            output = range(first, max(first, tracked.computed // engine.manager.block_size))
            merged = rng.sample(output, min(len(output), 3)) if rng.random() < 0.5 else []
            rule = rng.choice([None, BY_ATTENTION])
            merges = [merge_of(merged[1:], merged[:1], rule)] if merged else []
            requests.append(
                pb.RequestPlan(
                    handle=tracked.handle,
                    epoch=epoch,
                    evict=[] if merges else blocks,
                    probe=rng.random() < 0.2,
                    merges=merges,
                )
            )
    return pb.Plan(sequence=1, based_on_step=hooks.step + (rng.random() < 0.05), requests=requests)


def test_random_sequences_lose_no_block(model: str) -> None:
    engine = RunningEngine(
        model,
        None,
        {"STRICT": "1", "RECENT_TOKENS": "0", "SINK_TOKENS": "0"},
        num_gpu_blocks_override=POOL + 1,
        max_model_len=480,
        max_num_seqs=6,
    )
    try:
        run_sequences(engine)
    finally:
        engine.close()


def run_sequences(engine: RunningEngine) -> None:
    core: Any = engine.llm.llm_engine
    hooks = engine.hooks
    reused = 0
    for sequence in range(SEQUENCES):
        rng = random.Random(sequence)
        hooks.session.on_configure(
            pb.Configure(measure_every=rng.choice([0, 3]), probe_tokens=6, statistics=rng.choice([None, ATTENTION])),
            Outbox(),
        )
        live: list[str] = []
        freed: set[int] = set()
        for tick in range(rng.randrange(40, 120)):
            if rng.random() < 0.2 and len(live) < 10:
                name = f"{sequence}-{tick}"
                length = rng.choice([4, 20, 40, 90, 150])
                params = SamplingParams(
                    temperature=0.0, max_tokens=rng.randrange(1, 200), ignore_eos=True, detokenize=False
                )
                core.add_request(name, {"prompt_token_ids": prompt(rng.randrange(3), length)}, params)
                live.append(name)
            if live and rng.random() < 0.02:
                core.abort_request([live.pop(rng.randrange(len(live)))])
            before = {id(row): [b.block_id for b in row] for row in engine.manager.req_to_blocks.values()}
            if rng.random() < 0.5:
                hooks.session.on_plan(random_plan(rng, engine))
            core.step()
            for row in engine.manager.req_to_blocks.values():
                old = before.get(id(row), [])
                freed |= {was for was, block in zip(old, row, strict=False) if block.is_null and was}
                reused += sum(block.block_id in freed for block in row[len(old) :])
            if tick % 8 == 0:
                check_pool(engine)
        core.abort_request(live)
        while core.has_unfinished_requests():
            core.step()
        check_pool(engine)
        assert engine.pool.get_num_free_blocks() == POOL
        assert not hooks.live.requests + hooks.live.probes
    # the sequences did what they are for
    done = {
        "evicted": hooks.plans.evicted_blocks,
        "merges": hooks.plans.merges,
        "preemptions": hooks.preemptions,
        "probes": hooks.probes.started,
        "reused": reused,
    }
    assert min(done.values()) > 30, done
    assert all(
        hooks.plans.rejected[name]
        for name in ("unknown_rule", "stale_epoch", "future_step", "protected", "out_of_range", "not_resident")
    )


def test_freed_blocks_are_reused_by_another_request(start_engine: Callable[..., RunningEngine], peer: Any) -> None:
    # two requests of 14 blocks and a pool of 18: without evictions one of them would be preempted
    engine = start_engine(num_gpu_blocks_override=19, max_model_len=512)
    peer.decide = keep_at_most(4)
    engine.generate([prompt(1, 40), prompt(2, 40)], 400)
    assert peer.pools[-1].preemptions == 0
    assert all(len(history.evicted) >= 4 for history in peer.requests)
    peer.reset()
    engine.generate([prompt(1, 40), prompt(2, 40)], 400)
    assert peer.pools[-1].preemptions > 0
