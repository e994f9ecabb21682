"""vLLM's real scheduler with the plugin's, and a worker that computes nothing: the test says which token comes next."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from engine import BLOCK_SIZE, PLUGIN, use_settings
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from crystal_kv_vllm.gen import policy_pb2 as pb
from crystal_kv_vllm.outbox import Outbox
from crystal_kv_vllm.scheduler import CrystalAsyncScheduler, CrystalScheduler
from crystal_kv_vllm.spec import CrystalSpec

_HASH = get_hash_fn_by_name("sha256")
LAYERS = ("model.layers.0.self_attn.attn", "model.layers.1.self_attn.attn")
KV_HEADS = 2


def simulated_config(model: str, **overrides: Any) -> Any:
    """Of an engine with the plugin."""
    arguments = {"dtype": "float32", "max_model_len": 960, "block_size": BLOCK_SIZE, "enforce_eager": True, **overrides}
    return EngineArgs(model=model, **arguments, **PLUGIN).create_engine_config()


class SimulatedEngine:
    def __init__(
        self,
        model: str,
        next_token: Callable[[Request], int] = lambda _: 17,
        settings: dict[str, str] | None = None,
        pool_blocks: int = 32,
        steps_in_flight: int = 1,
        config: Any = None,
    ) -> None:
        """steps_in_flight: more than one: asynchronous scheduling. config: from `simulated_config`, to use it again."""
        use_settings(
            {"POLICY_ADDRESS": "", "STRICT": "1", "SINK_TOKENS": "0", "RECENT_TOKENS": "0", **(settings or {})}
        )
        init_none_hash(_HASH)
        config = config or simulated_config(model)
        # vLLM's CPU platform turns it off, and nothing is computed here
        config.scheduler_config.async_scheduling = steps_in_flight > 1
        config.cache_config.num_gpu_blocks = pool_blocks + 1
        spec = CrystalSpec(block_size=BLOCK_SIZE, num_kv_heads=KV_HEADS, head_size=64, dtype=torch.float32)
        self.scheduler: Any = (CrystalAsyncScheduler if steps_in_flight > 1 else CrystalScheduler)(
            config,
            KVCacheConfig(pool_blocks + 1, [], [KVCacheGroupSpec(list(LAYERS), spec)]),
            StructuredOutputManager(config),
            block_size=BLOCK_SIZE,
            hash_block_size=BLOCK_SIZE,
        )
        self.hooks: Any = self.scheduler._hooks
        self.outbox = Outbox()
        self._next_token = next_token
        self._steps_in_flight = steps_in_flight
        self._in_flight: deque[tuple[SchedulerOutput, Any]] = deque()
        caching = config.cache_config.enable_prefix_caching
        self._hasher = get_request_block_hasher(BLOCK_SIZE, _HASH) if caching else None

    def attach(self, **configure: Any) -> None:
        """As the policy client does."""
        self.hooks.session.on_configure(pb.Configure(**configure), self.outbox)

    def request(self, name: str, tokens: Sequence[int], max_tokens: int = 1, **options: Any) -> Request:
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        return Request(name, list(tokens), params, None, block_hasher=self._hasher, **options)

    def add(self, name: str, tokens: Sequence[int], max_tokens: int, **options: Any) -> Request:
        request = self.request(name, tokens, max_tokens, **options)
        self.scheduler.add_request(request)
        return request

    def step(self) -> None:
        output = self.scheduler.schedule()
        self._in_flight.append((output, self._note(output)))
        if len(self._in_flight) >= self._steps_in_flight or not output.total_num_scheduled_tokens:
            self._compute()

    def run_to_end(self) -> None:
        while self.scheduler.has_unfinished_requests():
            self.step()
        while self._in_flight:
            self._compute()

    def prefix_hit(self, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens are in the prefix cache."""
        hit: int = self.scheduler.kv_cache_manager.get_computed_blocks(self.request("look-up", tokens))[1]
        return hit

    def said(self, kind: str) -> list[Any]:
        """Messages of a kind that wait for the policy service."""
        with self.outbox._changed:
            return [getattr(it, kind) for it in self.outbox._messages if it.WhichOneof("message") == kind]

    def close(self) -> None:
        self.scheduler.shutdown()

    def _compute(self) -> None:
        """The oldest step in flight."""
        output, note = self._in_flight.popleft()
        sampled = self._run(output, note)
        self.scheduler.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=list(sampled),
                req_id_to_index={name: place for place, name in enumerate(sampled)},
                sampled_token_ids=list(sampled.values()),
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )

    def _note(self, output: SchedulerOutput) -> Any:
        """What is to be known of a step when it is computed; asked when it is scheduled."""
        return {name: not self.scheduler.requests[name].is_prefill_chunk for name in output.num_scheduled_tokens}

    def _run(self, output: SchedulerOutput, note: Any) -> dict[str, list[int]]:
        """Computes a step. Returns the new tokens of all its requests."""
        requests = self.scheduler.requests
        return {
            name: [self._next_token(requests[name])] if samples and name in requests else []
            for name, samples in note.items()
        }
