"""What the plugin refuses: other versions, missing names, features that it does not support.

Refused means stock vLLM: one log line, one metric, nothing of the plugin acts. With CRYSTALKV_STRICT=1 it is an error.
"""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .settings import Settings

#: Versions of vLLM on which the tests were run.
TESTED_VERSIONS = ("0.32.0", "0.33.0")

WORKER_CLASS = "crystal_kv_vllm.worker.CrystalWorker"

#: Models whose attention layers have their rotary positions beside them, by the name in their configuration.
MERGED_ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)

#: Names that are not vLLM's public interface, and that the plugin overrides or calls: module, then path in it.
PRIVATE_NAMES = (
    ("vllm.v1.kv_cache_spec_registry", "KVCacheSpecRegistry._ensure_registered"),
    ("vllm.v1.kv_cache_spec_registry", "KVCacheSpecRegistry.register"),
    ("vllm.v1.attention.backend", "AttentionBackend.customize_spec"),
    ("vllm.v1.attention.backend", "CommonAttentionMetadata.compute_num_computed_tokens"),
    ("vllm.v1.attention.backends.registry", "register_backend"),
    ("vllm.v1.core.single_type_kv_cache_manager", "FullAttentionManager.cache_blocks"),
    ("vllm.v1.core.single_type_kv_cache_manager", "FullAttentionManager.pop_blocks_for_free"),
    ("vllm.v1.core.block_pool", "BlockPool._maybe_evict_cached_block"),
    ("vllm.v1.core.block_pool", "BlockPool.free_blocks"),
    ("vllm.v1.core.block_pool", "BlockPool.get_num_free_blocks"),
    ("vllm.v1.core.kv_cache_manager", "KVCacheManager.create_kv_cache_blocks"),
    ("vllm.v1.core.sched.scheduler", "Scheduler._get_local_prefix_cache_hit"),
    ("vllm.v1.core.sched.scheduler", "Scheduler._free_request"),
    ("vllm.v1.core.sched.scheduler", "Scheduler.make_stats"),
    ("vllm.v1.core.sched.scheduler", "Scheduler.get_request_counts"),
    ("vllm.v1.core.sched.async_scheduler", "AsyncScheduler._update_after_schedule"),
    ("vllm.v1.outputs", "EMPTY_MODEL_RUNNER_OUTPUT"),
    ("vllm.v1.outputs", "AsyncModelRunnerOutput.get_output"),
    ("vllm.v1.worker.gpu_worker", "Worker.execute_model"),
    ("vllm.v1.worker.gpu_worker", "Worker.sample_tokens"),
)

#: Attributes that objects get when they are made, by the source of the class.
PRIVATE_ATTRIBUTES = (
    ("vllm.v1.core.single_type_kv_cache_manager", "SingleTypeKVCacheManager", ("req_to_blocks", "_null_block")),
    (
        "vllm.v1.core.sched.scheduler",
        "Scheduler",
        ("running", "waiting", "max_num_active_reqs", "num_waiting_for_streaming_input"),
    ),
    (
        "vllm.v1.request",
        "Request",
        ("num_computed_tokens", "num_in_flight_tokens", "num_output_placeholders", "num_preemptions"),
    ),
)


class NotSupportedError(RuntimeError):
    """CRYSTALKV_STRICT=1 and something is refused."""


@dataclass(frozen=True)
class Refusal:
    #: A word for the metric's label.
    feature: str
    #: A sentence for the log.
    why: str


def missing_names() -> list[str]:
    """Names that this vLLM does not have; empty when all are there."""
    missing = []
    for module, path in PRIVATE_NAMES:
        try:
            thing: Any = importlib.import_module(module)
            for part in path.split("."):
                thing = getattr(thing, part)
        except (ImportError, AttributeError):
            missing.append(f"{module}.{path}")
    for module, name, attributes in PRIVATE_ATTRIBUTES:
        try:
            source = inspect.getsource(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError, OSError):
            missing.append(f"{module}.{name}")
            continue
        missing += [f"{module}.{name}.{a}" for a in attributes if f"self.{a}" not in source]
    return missing


def version_refusals(version: str) -> Iterator[Refusal]:
    if version.partition("+")[0] not in TESTED_VERSIONS:
        tested = ", ".join(TESTED_VERSIONS)
        yield Refusal("version", f"vLLM {version} was not tested (tested: {tested})")
    else:
        for name in missing_names():
            yield Refusal("name", f"this vLLM has no {name}")


def config_refusals(config: Any, settings: Settings) -> Iterator[Refusal]:
    """What of a VllmConfig is not supported."""
    parallel, model = config.parallel_config, config.model_config
    if parallel.worker_cls != WORKER_CLASS:
        yield Refusal("worker", f"the worker class is {parallel.worker_cls}: start with --worker-cls {WORKER_CLASS}")
    if config.speculative_config is not None:
        yield Refusal("speculative_decoding", "speculative decoding is on")
    for name, size in (
        ("pipeline_parallel", parallel.pipeline_parallel_size),
        ("decode_context_parallel", parallel.decode_context_parallel_size),
        ("prefill_context_parallel", parallel.prefill_context_parallel_size),
    ):
        if size > 1:
            yield Refusal(name, f"{name}_size is {size}: at most 1")
    if parallel.enable_dbo:
        yield Refusal("micro_batches", "micro-batches (enable_dbo) are on")
    if config.aux_output_config.enabled:
        yield Refusal("routed_experts", "routed experts are returned (enable_return_routed_experts)")
    if config.kv_transfer_config is not None:
        yield Refusal("kv_connector", "a KV connector is configured")
    if model.runner_type != "generate" or model.is_encoder_decoder or model.is_diffusion:
        yield Refusal("model", "the model is not a decoder that generates token by token")
    if model.uses_alibi:
        yield Refusal("alibi", "the model uses ALiBi, whose distances a hole would change")
    dtype = config.cache_config.cache_dtype
    if dtype not in ("auto", "float16", "bfloat16", "float32"):
        yield Refusal("kv_cache_dtype", f"the KV cache is quantised ({dtype})")
    if settings.lockstep and config.scheduler_config.async_scheduling:
        yield Refusal("lockstep", "lockstep needs --no-async-scheduling")


def cache_refusals(kv_cache_config: Any, manager: Any) -> Iterator[Refusal]:
    """What of the KV cache that vLLM made is not supported."""
    from .manager import CrystalManager

    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        yield Refusal("kv_cache_groups", f"the model has {len(groups)} KV cache groups (hybrid attention): at most 1")
        return
    spec = groups[0].kv_cache_spec
    if not isinstance(manager, CrystalManager):
        yield Refusal("attention", f"the layers' cache is a {type(spec).__name__}, not plain full attention")
    elif spec.sliding_window is not None or spec.attention_chunk_size is not None:
        yield Refusal("attention", "some layers of the group use a sliding window or chunks")


def platform_refusals(config: Any, block_size: int, head_size: int) -> Iterator[Refusal]:
    """What of the device's attention is not supported."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

        isa = _get_attn_isa(config.model_config.dtype, block_size, head_size, config.cache_config.cache_dtype)
        if isa != "vec":
            yield Refusal(
                "cpu_attention",
                f"CPU attention {isa!r} stores keys in an order that was not checked: use --dtype float32 and a "
                "--block-size that is a multiple of 32",
            )
    elif config.compilation_config.cudagraph_mode.has_full_cudagraphs():
        yield Refusal(
            "cuda_graphs",
            "full CUDA graphs replay attention without measuring it: use "
            '--compilation-config \'{"cudagraph_mode": "PIECEWISE"}\'',
        )
