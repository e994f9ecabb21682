"""What the plugin refuses: other versions, missing names, features that it does not support.

Refused means stock vLLM: one log line, one metric, nothing of the plugin acts. With CRYSTALKV_STRICT=1 it is an error.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .settings import Settings

#: Versions of vLLM on which the tests were run.
TESTED_VERSIONS = ("0.32.0", "0.33.0")

#: What chooses the scheduler class: a function of this package.
SCHEDULER = "crystal_kv_vllm.scheduler.scheduler"
WORKER_CLASS = "crystal_kv_vllm.worker.CrystalWorker"

#: Models whose attention layers have their rotary positions beside them, by the name in their configuration.
MERGED_ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)

#: What is not vLLM's public interface, and what the plugin overrides or calls: module, then path in it.
PRIVATE_NAMES = (
    ("vllm.v1.kv_cache_spec_registry", "KVCacheSpecRegistry._ensure_registered"),
    ("vllm.v1.kv_cache_spec_registry", "KVCacheSpecRegistry.register"),
    ("vllm.v1.attention.backend", "CommonAttentionMetadata.compute_num_computed_tokens"),
    ("vllm.v1.attention.backend", "AttentionCGSupport.NEVER"),
    ("vllm.v1.attention.backend", "AttentionMetadataBuilder.build_for_cudagraph_capture"),
    ("vllm.v1.attention.backend", "AttentionMetadataBuilder.get_cudagraph_support"),
    ("vllm.v1.attention.backends.registry", "register_backend"),
    ("vllm.v1.attention.backends.registry", "AttentionBackendEnum.clear_override"),
    ("vllm.v1.attention.backends.registry", "AttentionBackendEnum.is_overridden"),
    ("vllm.v1.attention.selector", "_cached_get_attn_backend.cache_clear"),
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
    ("vllm.v1.core.sched.request_queue", "RequestQueue.prepend_request"),
    ("vllm.v1.core.sched.request_queue", "RequestQueue.remove_requests"),
    ("vllm.v1.core.sched.async_scheduler", "AsyncScheduler._update_after_schedule"),
    ("vllm.v1.outputs", "EMPTY_MODEL_RUNNER_OUTPUT"),
    ("vllm.v1.outputs", "AsyncModelRunnerOutput.get_output"),
    ("vllm.v1.worker.gpu_worker", "Worker.execute_model"),
    ("vllm.v1.worker.gpu_worker", "Worker.sample_tokens"),
    ("vllm.v1.worker.gpu_worker", "Worker.load_model"),
    ("vllm.v1.worker.gpu_worker", "Worker.get_kv_cache_spec"),
    ("vllm.v1.worker.gpu_worker", "Worker.determine_available_memory"),
    ("vllm.v1.worker.gpu.buffer_utils", "StagedWriteTensor.stage_write"),
)

#: Attributes that the plugin reads or writes of vLLM's objects: module, class, names.
PRIVATE_ATTRIBUTES = (
    (
        "vllm.config",
        "VllmConfig",
        (
            *("aux_output_config", "cache_config", "compilation_config", "kv_transfer_config", "model_config"),
            *("parallel_config", "reasoning_config", "scheduler_config", "speculative_config", "use_v2_model_runner"),
        ),
    ),
    (
        "vllm.config",
        "ParallelConfig",
        (
            *("data_parallel_index", "decode_context_parallel_size", "enable_dbo", "pipeline_parallel_size"),
            *("prefill_context_parallel_size", "tensor_parallel_size", "worker_cls"),
        ),
    ),
    (
        "vllm.config",
        "ModelConfig",
        (
            *("architecture", "dtype", "is_diffusion", "is_encoder_decoder", "max_model_len", "runner_type"),
            *("served_model_name", "skip_tokenizer_init", "uses_alibi", "uses_mrope"),
        ),
    ),
    ("vllm.config", "CacheConfig", ("block_size", "cache_dtype", "enable_prefix_caching", "kv_cache_memory_bytes")),
    ("vllm.config", "SchedulerConfig", ("async_scheduling", "max_num_seqs", "scheduler_cls")),
    (
        "vllm.config",
        "CompilationConfig",
        ("cudagraph_mode", "max_cudagraph_capture_size", "static_forward_context"),
    ),
    (
        "vllm.v1.kv_cache_interface",
        "FullAttentionSpec",
        (
            *("attention_chunk_size", "block_size", "head_size", "non_causal", "num_kv_heads", "page_size_bytes"),
            "sliding_window",
        ),
    ),
    ("vllm.v1.core.single_type_kv_cache_manager", "SingleTypeKVCacheManager", ("_null_block", "req_to_blocks")),
    ("vllm.v1.core.block_pool", "BlockPool", ("num_gpu_blocks",)),
    ("vllm.v1.core.kv_cache_utils", "KVCacheBlock", ("block_id", "is_null", "ref_cnt")),
    ("vllm.v1.core.kv_cache_manager", "KVCacheManager", ("block_pool", "coordinator")),
    ("vllm.v1.core.kv_cache_coordinator", "KVCacheCoordinator", ("single_type_managers",)),
    (
        "vllm.v1.core.sched.scheduler",
        "Scheduler",
        (
            *("block_size", "kv_cache_config", "kv_cache_manager", "max_num_active_reqs"),
            *("num_waiting_for_streaming_input", "requests", "running", "vllm_config", "waiting"),
        ),
    ),
    (
        "vllm.v1.core.sched.output",
        "SchedulerOutput",
        (
            *("finished_req_ids", "num_scheduled_tokens", "preempted_req_ids", "scheduled_new_reqs"),
            "total_num_scheduled_tokens",
        ),
    ),
    (
        "vllm.v1.request",
        "Request",
        (
            *("all_token_ids", "block_hashes", "is_prefill_chunk", "max_tokens", "mm_features", "num_computed_tokens"),
            *("num_in_flight_tokens", "num_output_placeholders", "num_output_tokens", "num_preemptions"),
            *("num_prompt_tokens", "num_tokens", "pooling_params", "prompt_embeds", "sampling_params", "status"),
        ),
    ),
    (
        "vllm.v1.attention.backend",
        "CommonAttentionMetadata",
        (
            *("_num_computed_tokens_cache", "block_table_tensor", "num_reqs", "query_start_loc", "query_start_loc_cpu"),
            *("req_idx", "seq_lens", "seq_lens_cpu_upper_bound"),
        ),
    ),
    ("vllm.v1.worker.gpu_worker", "Worker", ("device", "model_runner", "rank", "use_v2_model_runner", "vllm_config")),
    (
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner",
        ("get_model", "input_batch", "prepare_inputs_event", "requests"),
    ),
    ("vllm.v1.worker.gpu_input_batch", "InputBatch", ("block_table", "req_id_to_index", "req_ids")),
    ("vllm.v1.worker.gpu_input_batch", "CachedRequestState", ("block_ids",)),
    ("vllm.v1.worker.block_table", "BlockTable", ("block_table",)),
    ("vllm.v1.worker.gpu.model_runner", "GPUModelRunner", ("block_tables", "get_model", "req_states")),
    ("vllm.v1.worker.gpu.block_table", "BlockTables", ("block_tables",)),
    ("vllm.v1.worker.gpu.states", "RequestState", ("index_to_req_id", "req_id_to_index")),
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
            made = getattr(importlib.import_module(module), name)
            missing += [f"{module}.{name}.{a}" for a in attributes if not _has_attribute(made, a)]
        except (ImportError, AttributeError, OSError):
            missing.append(f"{module}.{name}")
    return missing


def _has_attribute(made: type, attribute: str) -> bool:
    """Whether objects of a class get an attribute: by its fields and properties, or where its source assigns it."""
    assigned = re.compile(rf"\bself\.{attribute}\b *(:|=[^=])")
    return any(
        attribute in vars(base)
        or attribute in vars(base).get("__annotations__", {})
        or assigned.search(_source(base)) is not None
        for base in made.__mro__
        if base.__module__.startswith("vllm.")
    )


@cache
def _source(made: type) -> str:
    """Of a class of a module's top level. `inspect` would parse the whole module for each."""
    module = inspect.getsource(importlib.import_module(made.__module__))
    found = re.search(rf"^class {made.__name__}\b.*?(?=^[^\s#)]|\Z)", module, re.MULTILINE | re.DOTALL)
    return "" if found is None else found[0]


def engine_refusals(config: Any, settings: Settings) -> list[Refusal]:
    """What of this vLLM and its configuration is not supported. Scheduler and workers ask, and get the same answer."""
    import vllm

    return list(version_refusals(vllm.__version__)) or list(config_refusals(config, settings))


def model_refusals(config: Any, specs: Mapping[str, Any]) -> list[Refusal]:
    """Likewise of the model's layers, whose caches have these specs, and of the device."""
    refusals = list(cache_refusals(specs))
    if not refusals:
        spec = next(iter(specs.values()))
        refusals += platform_refusals(config, spec.block_size, spec.head_size)
    return refusals


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
    if not _obeys_plans(config.scheduler_config.scheduler_cls):
        yield Refusal("scheduler", f"the scheduler obeys no plans: start with --scheduler-cls {SCHEDULER}")
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


def _obeys_plans(scheduler: Any) -> bool:
    """scheduler: the class, what makes one, or the name of either, as vLLM's configuration has it; None: vLLM's own."""
    if scheduler is None:
        return False
    if isinstance(scheduler, str):
        from vllm.utils.import_utils import resolve_obj_by_qualname

        scheduler = resolve_obj_by_qualname(scheduler)
    from . import scheduler as own

    return scheduler is own.scheduler or (isinstance(scheduler, type) and issubclass(scheduler, own.SchedulerMixin))


def cache_refusals(specs: Mapping[str, Any]) -> Iterator[Refusal]:
    """What of the layers' caches is not supported. specs: of all layers that have a cache, by name."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from .spec import CrystalSpec

    others = sorted(
        {type(spec).__name__ for spec in specs.values() if type(spec) not in (FullAttentionSpec, CrystalSpec)}
    )
    plain = not others and bool(specs)
    if not specs:
        yield Refusal("attention", "no layer has a cache")
    elif len(others) == 1 and len({type(spec) for spec in specs.values()}) == 1:
        yield Refusal("attention", f"the layers' cache is a {others[0]}, not plain full attention")
    elif others:
        yield Refusal("kv_cache_groups", f"some layers' caches are not plain full attention: {', '.join(others)}")
    if plain and any(
        spec.sliding_window is not None or spec.attention_chunk_size is not None for spec in specs.values()
    ):
        yield Refusal("attention", "some layers use a sliding window or chunks")
    elif plain and any(spec.non_causal for spec in specs.values()):
        yield Refusal("attention", "some layers read tokens that come later")
    elif plain and len(set(specs.values())) > 1:
        yield Refusal("head_groups", "the layers differ in their KV heads or head sizes")


def layer_specs(kv_cache_config: Any) -> dict[str, Any]:
    """The specs of all layers that have a cache, by name."""
    specs = {}
    for group in kv_cache_config.kv_cache_groups:
        # layers of one kind that differ in size are a group with a spec for each
        each = getattr(group.kv_cache_spec, "kv_cache_specs", {})
        specs.update({layer: each.get(layer, group.kv_cache_spec) for layer in group.layer_names})
    return specs


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
