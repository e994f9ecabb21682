"""Whatever requests and plans do, two steps in flight: nobody reads a wrong slot of the cache, and no block is lost.

Vary the number of sequences with CRYSTALKV_FUZZ_SEQUENCES: each of the four configurations runs as many.
"""

import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from engine import BLOCK_SIZE

from crystal_kv_vllm.gen import policy_pb2 as pb

if TYPE_CHECKING:
    from checked_engine import CheckedEngine

pytestmark = pytest.mark.vllm

SEQUENCES = int(os.environ.get("CRYSTALKV_FUZZ_SEQUENCES", "50"))
TICKS = 150
POOL_BLOCKS = 16
STATISTICS = pb.KeptStatistics(statistics=[pb.STATISTIC_ATTENTION], attention_half_life_tokens=64)


class Traffic:
    """Clients and a policy service that do random things between two steps."""

    def __init__(self, engine: "CheckedEngine", rng: random.Random) -> None:
        self.engine = engine
        self.rng = rng
        self.done: Counter[str] = Counter()
        self._names: list[str] = []
        self._sessions: list[str] = []
        #: Tokens of requests, from which others begin.
        self._texts: list[list[int]] = []
        self._plans = 0

    def act(self, tick: int) -> None:
        rng, engine = self.rng, self.engine
        if tick % 20 == 0:
            statistics = STATISTICS if rng.random() < 0.5 else None
            engine.attach(measure_every=rng.choice([0, 3]), probe_tokens=6, statistics=statistics)
        requests = engine.scheduler.requests
        if rng.random() < 0.25 and len(requests) < 12:
            self._arrive()
        self._sessions = [name for name in self._sessions if name in requests]
        if self._sessions and rng.random() < 0.1:
            self._continue(rng.choice(self._sessions))
        if requests and rng.random() < 0.03:
            self._abort(rng.choice(sorted(set(self._names) & set(requests)) or [""]))
        # vLLM itself fails when the cache of a session between two inputs is thrown away
        if not self._sessions and rng.random() < 0.02:
            engine.scheduler.reset_prefix_cache(reset_running_requests=True)
            self.done["resets"] += 1
        if rng.random() < 0.6:
            self._plan()

    def end(self) -> None:
        self.engine.scheduler.finish_requests(list(self.engine.scheduler.requests), self._aborted)
        self.engine.run_to_end()

    @property
    def _aborted(self) -> Any:
        from vllm.v1.request import RequestStatus

        return RequestStatus.FINISHED_ABORTED

    def _arrive(self) -> None:
        rng = self.rng
        if self._texts and rng.random() < 0.4:
            text = rng.choice(self._texts)
            prompt = text[: rng.randrange(1, len(text) + 1)][:300]
        else:
            seed = rng.randrange(3)
            prompt = [10 + (seed * 31 + it * 17 + it * it * seed) % 150 for it in range(rng.choice([4, 20, 70, 150]))]
        name = f"request-{len(self._names)}"
        resumable = rng.random() < 0.15
        options = {"priority": rng.randrange(3), "cache_salt": rng.choice([None, None, "a"]), "resumable": resumable}
        request = self.engine.add(name, prompt, rng.randrange(1, 170), **options)
        self._names.append(name)
        # it grows
        self._texts.append(request._all_token_ids)
        if resumable:
            self._sessions.append(name)

    def _continue(self, name: str) -> None:
        """A session gets its next input, which may be the last."""
        tokens = [10 + self.rng.randrange(150) for _ in range(self.rng.randrange(1, 40))]
        salt = self.engine.scheduler.requests[name].cache_salt
        resumable = self.rng.random() < 0.7
        self.engine.add(name, tokens, self.rng.randrange(1, 60), resumable=resumable, cache_salt=salt)
        self.done["inputs"] += 1

    def _abort(self, name: str) -> None:
        if name:
            self.engine.scheduler.finish_requests(name, self._aborted)
            self.done["aborts"] += 1

    def _plan(self) -> None:
        rng, hooks = self.rng, self.engine.hooks
        self._plans += 1
        plan = pb.Plan(sequence=self._plans, based_on_step=hooks.step)
        for tracked in [*hooks.live.requests, *hooks.live.probes]:
            if rng.random() < 0.5:
                plan.requests.append(self._request_plan(tracked))
        hooks.session.on_plan(plan)

    def _request_plan(self, tracked: Any) -> pb.RequestPlan:
        rng = self.rng
        first = -(-tracked.request.num_prompt_tokens // BLOCK_SIZE)
        outputs = range(first, max(first, tracked.computed // BLOCK_SIZE))
        plan = pb.RequestPlan(
            handle=tracked.handle,
            epoch=tracked.epoch,
            probe=rng.random() < 0.3,
            release_thinking=rng.random() < 0.2,
        )
        merge = self._merge(rng.sample(outputs, min(len(outputs), 3)))
        match rng.randrange(5):
            case 0 | 1 if merge is not None:
                plan.merges.append(merge)
            case 2:
                # whatever is in the way of these is said
                shadow = pb.ShadowPlan(begin=rng.random() < 0.3, evict=self._some(), read_share=0.1)
                plan.shadow.CopyFrom(shadow)
                plan.shadow.merges.extend([] if merge is None else [merge])
            case _:
                plan.evict.extend(self._some())
        return plan

    def _some(self) -> list[int]:
        return self.rng.sample(range(12), self.rng.randrange(6))

    @staticmethod
    def _merge(blocks: list[int]) -> pb.Merge | None:
        if len(blocks) < 2:
            return None
        merge = pb.Merge(into=blocks[1:])
        # a Python keyword is a field's name
        getattr(merge, "from").append(blocks[0])
        return merge


@pytest.mark.parametrize("caching", [True, False], ids=["prefix cache", "no prefix cache"])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_no_slot_is_read_that_another_request_wrote_or_that_is_stale(model: str, policy: str, caching: bool) -> None:
    from checked_engine import CheckedEngine
    from simulated_engine import simulated_config

    config = simulated_config(
        model, max_model_len=480, max_num_seqs=6, scheduling_policy=policy, enable_prefix_caching=caching
    )
    done: Counter[str] = Counter()
    for seed in range(SEQUENCES):
        rng = random.Random(f"{policy} {caching} {seed}")
        engine = CheckedEngine(
            model,
            POOL_BLOCKS,
            next_token=lambda request: 10 + request.num_tokens * 17 % 150,
            steps_in_flight=2,
            config=config,
        )
        traffic = Traffic(engine, rng)
        try:
            for tick in range(TICKS):
                traffic.act(tick)
                engine.step()
                if tick % 5 == 0:
                    engine.check_pool()
            traffic.end()
            engine.check_pool()
            assert engine.hooks.manager.free_blocks == POOL_BLOCKS
            assert not engine.hooks.live.requests
            assert not engine.hooks.live.probes
        except Exception as error:
            error.add_note(f"sequence {seed}")
            raise
        finally:
            engine.close()
        done += engine.done + traffic.done
        done["evicted"] += engine.hooks.plans.evicted_blocks
        done["preemptions"] += engine.hooks.preemptions
    # the sequences did what they are for
    wanted = {
        "evicted",
        "merges",
        "shadow plans",
        "holes passed",
        "preemptions",
        "resumed",
        "resets",
        "inputs",
        "aborts",
    }
    assert not {name for name in (wanted | {"probes"} if caching else wanted) if done[name] < SEQUENCES // 5}, done


def test_a_block_that_is_taken_behind_the_workers_back_is_noticed(model: str) -> None:
    from checked_engine import CheckedEngine, WrongReadError

    engine = CheckedEngine(model, POOL_BLOCKS, next_token=lambda _: 17, steps_in_flight=2)
    try:
        engine.attach(measure_every=0, probe_tokens=0)
        engine.add("a", [10] * 40, 200)
        for _ in range(100):
            engine.step()
        engine.hooks.manager.punch("a", [2])
        engine.add("b", [11] * 300, 200)
        with pytest.raises(WrongReadError, match="a reads an empty or a foreign slot at 64"):
            engine.run_to_end()
    finally:
        engine.close()
