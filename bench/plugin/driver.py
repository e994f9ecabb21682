"""What the plugin adds to vLLM's schedulers, and what a merge costs; prints one JSON object.

The schedulers are vLLM's own, with two steps in flight; the model is none: every request gets the same token. Stock and
plugin take turns, and what is measured is the thread's processor time, since the machine may be busy.
"""

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "vllm-plugin"), str(ROOT / "vllm-plugin" / "tests")]
os.environ |= {
    "CRYSTALKV_POLICY_ADDRESS": "",
    "CRYSTALKV_STRICT": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}

import torch  # noqa: E402
import vllm  # noqa: E402
from device_operations import DeviceOperations, fake_gpu  # noqa: E402
from vllm import SamplingParams  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.utils.hashing import get_hash_fn_by_name  # noqa: E402
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash  # noqa: E402
from vllm.v1.core.sched.async_scheduler import AsyncScheduler  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec  # noqa: E402
from vllm.v1.outputs import ModelRunnerOutput  # noqa: E402
from vllm.v1.request import Request  # noqa: E402
from vllm.v1.structured_output import StructuredOutputManager  # noqa: E402

from crystal_kv_vllm.cache_stack import CacheLayer, CacheStack, stack_layers  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.head_groups import HeadGroups  # noqa: E402
from crystal_kv_vllm.keep_rule import MOST_DISTINCT  # noqa: E402
from crystal_kv_vllm.merger import Merger  # noqa: E402
from crystal_kv_vllm.outbox import Outbox  # noqa: E402
from crystal_kv_vllm.rotation import Rotation  # noqa: E402
from crystal_kv_vllm.scheduler import CrystalAsyncScheduler  # noqa: E402
from crystal_kv_vllm.spec import CrystalSpec  # noqa: E402
from crystal_kv_vllm.worker_io import MergeCommand, TableEntry  # noqa: E402

REQUESTS, PROMPT, BLOCK = 256, 64, 32
LAYERS, KV_HEADS, HEAD, KERNEL_BLOCK = 64, 8, 128, 16
HASH = get_hash_fn_by_name("sha256")


class Sink(Outbox):
    """Nobody reads it."""

    def put(self, message: pb.AttachRequest) -> None:
        message.SerializeToString()


class Engine:
    def __init__(self, plugin: bool, configure: pb.Configure | None = None) -> None:
        arguments: dict[str, Any] = {"scheduler_cls": "crystal_kv_vllm.scheduler.scheduler"} if plugin else {}
        if plugin:
            arguments["worker_cls"] = "crystal_kv_vllm.worker.CrystalWorker"
        config = EngineArgs(
            model=str(ROOT / "model" / "crystal-mini"),
            dtype="float32",
            max_model_len=960,
            block_size=BLOCK,
            max_num_seqs=REQUESTS,
            max_num_batched_tokens=REQUESTS * PROMPT + 64,
            enforce_eager=True,
            **arguments,
        ).create_engine_config()
        config.scheduler_config.async_scheduling = True
        blocks = REQUESTS * 32 + 1
        config.cache_config.num_gpu_blocks = blocks
        kind = CrystalSpec if plugin else FullAttentionSpec
        spec = kind(block_size=BLOCK, num_kv_heads=2, head_size=32, dtype=torch.float32)
        group = KVCacheGroupSpec([f"model.layers.{layer}.self_attn.attn" for layer in range(4)], spec)
        make = CrystalAsyncScheduler if plugin else AsyncScheduler
        self.scheduler: Any = make(
            config,
            KVCacheConfig(blocks, [], [group]),
            StructuredOutputManager(config),
            block_size=BLOCK,
            hash_block_size=BLOCK,
            log_stats=True,
        )
        if configure is not None:
            self.scheduler._hooks.session.on_configure(configure, Sink())
        hasher = get_request_block_hasher(BLOCK, HASH)
        for number in range(REQUESTS):
            tokens = [10 + (number * 31 + place * 17) % 150 for place in range(PROMPT)]
            params = SamplingParams(temperature=0.0, max_tokens=880, ignore_eos=True)
            self.scheduler.add_request(Request(f"r{number}", tokens, params, None, block_hasher=hasher))
        self.waiting: list[Any] = []
        self.schedule_ms: list[float] = []
        self.update_ms: list[float] = []

    def step(self) -> None:
        start = time.thread_time()
        output = self.scheduler.schedule()
        self.schedule_ms.append(1e3 * (time.thread_time() - start))
        self.waiting.append(output)
        if len(self.waiting) < 2:
            return
        done = self.waiting.pop(0)
        names = list(done.num_scheduled_tokens)
        sampled = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: place for place, name in enumerate(names)},
            sampled_token_ids=[[17] for _ in names],
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )
        start = time.thread_time()
        self.scheduler.update_from_output(done, sampled)
        self.update_ms.append(1e3 * (time.thread_time() - start))


def schedulers(steps: int) -> dict[str, float]:
    init_none_hash(HASH)
    kept = pb.KeptStatistics(statistics=[pb.STATISTIC_ATTENTION, pb.STATISTIC_PEAK, pb.STATISTIC_ANSWER])
    engines = {
        "stock": Engine(False),
        "plugin": Engine(True, pb.Configure(measure_every=0)),
        "counting": Engine(True, pb.Configure(measure_every=0, statistics=kept)),
    }
    for turn in range(steps):
        for engine in engines.values():
            # the order changes, since each leaves the caches of the processor to the next
            engine.step()
        engines = dict(reversed(engines.items())) if turn % 2 else engines
    skip = 20
    of = {
        name: (median(engine.schedule_ms[skip:]), median(engine.update_ms[skip:])) for name, engine in engines.items()
    }
    schedule, update = of["stock"]
    return {
        "schedule_stock_ms_256": schedule,
        "update_stock_ms_256": update,
        "schedule_added_ms_256": of["plugin"][0] - schedule,
        "update_added_ms_256": of["plugin"][1] - update,
        "schedule_counting_added_ms_256": of["counting"][0] - schedule,
        "update_counting_added_ms_256": of["counting"][1] - update,
    }


def masses() -> dict[str, float]:
    """Of 256 requests x 8k tokens that are measured in one step, and no calibration."""
    blocks = REQUESTS * 8192 // KERNEL_BLOCK
    spec = CrystalSpec(block_size=KERNEL_BLOCK, num_kv_heads=KV_HEADS, head_size=HEAD, dtype=torch.bfloat16)
    group = KVCacheGroupSpec([str(layer) for layer in range(LAYERS)], spec)
    return {"masses_bytes_256": len(HeadGroups.of(KVCacheConfig(blocks, [], [group])).select(())) * blocks}


def command(tokens: int) -> MergeCommand:
    row = [TableEntry(index, index + 1) for index in range(tokens // KERNEL_BLOCK)]
    return MergeCommand(row[:63], row[63:64], row[64:], KERNEL_BLOCK, MOST_DISTINCT)


def merge_operations(tokens: int, requests: int) -> tuple[int, int]:
    """On a GPU, which is a fake one: operations, and bytes of the largest copy."""
    with fake_gpu() as gpu:
        cache = torch.empty(
            LAYERS, tokens // KERNEL_BLOCK + 1, KV_HEADS, KERNEL_BLOCK, 2 * HEAD, dtype=torch.bfloat16, device=gpu
        )
        rotation = Rotation(torch.empty(tokens, HEAD, device=gpu), halves=True)
        merger = Merger([CacheStack(tuple(map(str, range(LAYERS))), 0, cache[..., :HEAD], cache[..., HEAD:], rotation)])
        with DeviceOperations() as operations:
            merger.merge_all([(str(number), command(tokens)) for number in range(requests)])
    return operations.count, operations.largest_bytes


def merge_on_cpu(rounds: int) -> float:
    """Processor time of one thread; heads of 32, one of them a layer, so that it fits a small machine."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    cache = torch.randn(LAYERS, 8192 // KERNEL_BLOCK + 1, 1, KERNEL_BLOCK, 64)
    rotation = Rotation(torch.randn(8192, 32), halves=True)
    merger = Merger(
        stack_layers([CacheLayer(str(i), cache[i, ..., :32], cache[i, ..., 32:], rotation) for i in range(LAYERS)])
    )
    times = []
    for number in range(rounds):
        start = time.thread_time()
        merger.merge(str(number), command(8192))
        times.append(1e3 * (time.thread_time() - start))
    return median(times)


def main() -> None:
    steps, rounds = (int(argument) for argument in sys.argv[1:])
    one, largest = merge_operations(8192, 1)
    figures = schedulers(steps) | masses()
    figures |= {
        "merge_ops_8k": one,
        "merge_ops_8k_requests_8": merge_operations(8192, 8)[0],
        "merge_largest_copy_bytes_8k": largest,
        "merge_largest_copy_bytes_100k": merge_operations(102_400, 1)[1],
        "merge_ms_8k_cpu": merge_on_cpu(rounds),
    }
    print(json.dumps({"vllm": vllm.__version__, "torch": torch.__version__, "figures": figures}))


if __name__ == "__main__":
    main()
