"""What is evicted of a request does not depend on who runs beside it."""

from collections.abc import Callable

import pytest
from engine import RunningEngine, prompt
from scripted_peer import ScriptedPeer

from crystal_kv_vllm.gen import policy_pb2 as pb

pytestmark = pytest.mark.vllm

BLOCK = 32


def least_read(keep: int):  # type: ignore[no-untyped-def]
    """A fixed budget by what was read: the blocks with the least mass in this step go first."""

    def decide(peer: ScriptedPeer, step: pb.Step) -> list[pb.RequestPlan]:
        plans = []
        for entry in step.requests:
            life = peer.lives[entry.handle]
            first = -(-life.started.prompt_tokens // BLOCK)
            blocks = -(-entry.computed_tokens // BLOCK)
            resident = [b for b in range(blocks) if b not in life.evicted]
            groups = [entry.masses[i : i + len(resident)] for i in range(0, len(entry.masses), len(resident))]
            code = {b: min(group[i] for group in groups) for i, b in enumerate(resident)}
            thinking = [b for b in resident if b >= first]
            may_go = [b for b in thinking if (b + 1) * BLOCK <= entry.computed_tokens - 64]
            over = min(len(thinking) - keep, len(may_go))
            if over > 0:
                chosen = sorted(may_go, key=lambda b: (-code[b], b))[:over]
                plans.append(pb.RequestPlan(handle=entry.handle, epoch=entry.epoch, evict=sorted(chosen)))
        return plans

    return decide


def test_the_same_prompt_alone_and_among_sixteen_loses_the_same_blocks(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    engine = start_engine(num_gpu_blocks_override=400)
    wanted = prompt(3, 45)
    peer.decide = least_read(4)
    alone = engine.generate([wanted], 300)[0].tokens
    (life,) = peer.requests
    first = life.steps[0][0]
    order = [(block, step - first) for block, step in life.evicted.items()]
    assert len(order) >= 4
    peer.reset()
    engine.scheduler.reset_prefix_cache()
    peer.decide = least_read(4)
    outputs = engine.generate([prompt(20 + i, 30 + 7 * i) for i in range(15)] + [wanted], 300)
    life = peer.requests[-1]
    assert outputs[-1].tokens == alone
    first = life.steps[0][0]
    assert [(block, step - first) for block, step in life.evicted.items()] == order
