"""Gives a scheduler its hooks, the policy client and the metrics; or says why the plugin stays inactive."""

import logging
import os
import uuid
from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from .backends import BACKENDS
from .compat import MERGED_ARCHITECTURES, NotSupportedError, Refusal, engine_refusals, layer_specs, model_refusals
from .evict import Protection
from .gen import policy_pb2 as pb
from .head_groups import HeadGroups
from .keep_rule import COMPUTED_STATISTICS, KEPT_STATISTICS
from .manager import CrystalManager
from .metrics_server import PluginCollector, serve_metrics
from .output_markers import OutputMarkers, read_output_markers
from .policy_client import PolicyClient
from .protocol import PROTOCOL_MAX, PROTOCOL_MIN
from .scheduler_hooks import HookOptions, SchedulerHooks
from .settings import Settings, read_settings

logger = logging.getLogger("vllm.crystal_kv")


def start_plugin(scheduler: Scheduler) -> tuple[SchedulerHooks | None, Callable[[], None]]:
    """Called at the end of the scheduler's construction.

    Returns the hooks, and a function that ends the stream, its thread and the metrics' socket. The hooks are None where
    the plugin stays inactive; the reason is in the log. Raises NotSupportedError instead when it has to be strict.
    """
    settings = read_settings(os.environ)
    if not settings.enabled:
        return None, _nothing
    config = scheduler.vllm_config
    refusals = _refusals(scheduler, settings)
    rank = config.parallel_config.data_parallel_index
    model = config.model_config.served_model_name
    if refusals:
        why = "; ".join(refusal.why for refusal in refusals)
        if settings.strict:
            raise NotSupportedError(f"crystal-kv is not active: {why}")
        logger.warning("crystal-kv is not active, vLLM runs as stock: %s", why)
        return None, _serve(PluginCollector(model, str(rank), refusals, None), settings, rank)

    manager = _manager(scheduler)
    markers = read_output_markers(config, settings)
    groups = HeadGroups.of(scheduler.kv_cache_config)
    hooks = SchedulerHooks(
        scheduler,
        manager,
        HookOptions(
            protection=Protection(settings.sink_tokens, settings.recent_tokens),
            markers=markers,
            max_model_len=config.model_config.max_model_len,
            head_groups=groups,
            prefix_caching=bool(config.cache_config.enable_prefix_caching),
            lockstep_timeout=settings.lockstep_timeout_ms / 1000 if settings.lockstep else None,
            managed=settings.policy_address != "",
            block_bytes=block_bytes(scheduler),
        ),
    )
    client = None
    if settings.policy_address:
        hello = _hello(scheduler, settings, markers, groups, rank)
        client = PolicyClient(settings.policy_address, settings.policy_token, settings.policy_ca, hello, hooks.session)
        client.start()
    close_metrics = _serve(PluginCollector(model, str(rank), (), hooks), settings, rank)
    logger.info("crystal-kv is active: policy service %s", settings.policy_address or "none")

    def stop() -> None:
        if client is not None:
            client.close()
        close_metrics()

    return hooks, stop


def block_bytes(scheduler: Scheduler) -> int:
    """Bytes of a block's keys and values, on all ranks of tensor parallelism together."""
    group = scheduler.kv_cache_config.kv_cache_groups[0]
    shards: int = scheduler.vllm_config.parallel_config.tensor_parallel_size
    return group.kv_cache_spec.page_size_bytes * len(group.layer_names) * shards


def merges_keys_of(model_config: Any) -> bool:
    """Whether the keys of this model can be compared without their positions: merging needs that."""
    return model_config.architecture in MERGED_ARCHITECTURES and not model_config.uses_mrope


def engine_name(engine_id: str, data_parallel_rank: int) -> str:
    """Data-parallel ranks are engines of their own."""
    return engine_id if data_parallel_rank == 0 else f"{engine_id}-dp{data_parallel_rank}"


def _nothing() -> None:
    """There is nothing to end."""


def _refusals(scheduler: Scheduler, settings: Settings) -> list[Refusal]:
    refusals = engine_refusals(scheduler.vllm_config, settings)
    if not refusals:
        refusals = model_refusals(scheduler.vllm_config, layer_specs(scheduler.kv_cache_config))
    if not refusals and not isinstance(_manager(scheduler), CrystalManager):
        names = ", ".join(BACKENDS)
        refusals.append(Refusal("attention", f"the workers' attention backend is none of this package's ({names})"))
    return refusals


def _manager(scheduler: Scheduler) -> CrystalManager:
    return scheduler.kv_cache_manager.coordinator.single_type_managers[0]


def _serve(collector: PluginCollector, settings: Settings, rank: int) -> Callable[[], None]:
    """Serves the metrics, if that is asked for. Returns what ends it."""
    if settings.metrics_port is None:
        return _nothing
    wanted = settings.metrics_port + rank if settings.metrics_port else 0
    try:
        port, close = serve_metrics(collector, wanted, settings.metrics_host)
    except OSError as error:
        # fail open: an engine is worth more than its metrics
        logger.error("crystal-kv: cannot serve metrics on %s:%d: %s", settings.metrics_host, wanted, error)
        return _nothing
    logger.info("crystal-kv: metrics on http://%s:%d/metrics", settings.metrics_host, port)
    return close


def _hello(scheduler: Scheduler, settings: Settings, markers: OutputMarkers, groups: HeadGroups, rank: int) -> pb.Hello:
    config = scheduler.vllm_config
    group = scheduler.kv_cache_config.kv_cache_groups[0]
    capabilities = [pb.CAPABILITY_EVICT, pb.CAPABILITY_SHADOW]
    statistics = []
    if merges_keys_of(config.model_config):
        capabilities += [pb.CAPABILITY_MERGE, pb.CAPABILITY_SHADOW_MERGE]
        statistics = sorted(KEPT_STATISTICS | COMPUTED_STATISTICS)
    if config.cache_config.enable_prefix_caching and markers.end_of_thinking:
        capabilities.append(pb.CAPABILITY_PROBE)
    return pb.Hello(
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
        engine_id=engine_name(settings.engine_id, rank),
        instance_id=uuid.uuid4().hex,
        model=config.model_config.served_model_name,
        block_size=group.kv_cache_spec.block_size,
        bytes_per_block=block_bytes(scheduler),
        # the null block holds nothing
        pool_blocks=scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,
        layers=len(groups.layers),
        head_groups=len(groups),
        end_of_thinking=[pb.TokenSequence(token_ids=end) for end in markers.end_of_thinking],
        probe_suffix_tokens=len(markers.probe_suffix),
        segment_marker_token_ids=sorted(markers.segments),
        capabilities=capabilities,
        sink_tokens=settings.sink_tokens,
        recent_tokens=settings.recent_tokens,
        lockstep=settings.lockstep,
        statistics=statistics,
    )
