"""What is not supported leaves vLLM as it is, and says so."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from engine import RunningEngine, prompt
from ports import free_port
from scrape import metric, samples

from crystal_kv_vllm.compat import SCHEDULER, WORKER_CLASS, cache_refusals, config_refusals, layer_specs
from crystal_kv_vllm.settings import Settings


def config(**changes: object) -> SimpleNamespace:
    """A VllmConfig that is supported, but for the changes: path with dots replaced by two underscores."""
    made = SimpleNamespace(
        parallel_config=SimpleNamespace(
            worker_cls=WORKER_CLASS,
            pipeline_parallel_size=1,
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
            enable_dbo=False,
        ),
        model_config=SimpleNamespace(
            runner_type="generate", is_encoder_decoder=False, is_diffusion=False, uses_alibi=False
        ),
        cache_config=SimpleNamespace(cache_dtype="auto"),
        scheduler_config=SimpleNamespace(async_scheduling=True, scheduler_cls=SCHEDULER),
        speculative_config=None,
        kv_transfer_config=None,
        aux_output_config=SimpleNamespace(enabled=False),
    )
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = made
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, value)
    return made


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Warnings of the plugin. vLLM's loggers do not propagate to where `caplog` listens."""
    # it sets its loggers up when it is imported, and takes earlier handlers away
    pytest.importorskip("vllm")
    kept, logger = Kept(), logging.getLogger("vllm.crystal_kv")
    logger.addHandler(kept)
    yield kept.lines
    logger.removeHandler(kept)


def test_a_plain_configuration_is_supported() -> None:
    assert list(config_refusals(config(), Settings())) == []


@pytest.mark.vllm
def test_any_of_the_plugins_schedulers_and_what_is_made_from_them_is_supported() -> None:
    from crystal_kv_vllm.scheduler import CrystalAsyncScheduler

    class Further(CrystalAsyncScheduler):
        """A user's."""

    for scheduler in ("crystal_kv_vllm.scheduler.CrystalScheduler", Further):
        assert list(config_refusals(config(scheduler_config__scheduler_cls=scheduler), Settings())) == []


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"parallel_config__worker_cls": "auto"}, "worker"),
        ({"scheduler_config__scheduler_cls": None}, "scheduler"),
        ({"scheduler_config__scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, "scheduler"),
        ({"parallel_config__pipeline_parallel_size": 2}, "pipeline_parallel"),
        ({"parallel_config__decode_context_parallel_size": 2}, "decode_context_parallel"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "prefill_context_parallel"),
        ({"parallel_config__enable_dbo": True}, "micro_batches"),
        ({"speculative_config": object()}, "speculative_decoding"),
        ({"kv_transfer_config": object()}, "kv_connector"),
        ({"model_config__uses_alibi": True}, "alibi"),
        ({"model_config__runner_type": "pooling"}, "model"),
        ({"cache_config__cache_dtype": "fp8"}, "kv_cache_dtype"),
    ],
)
def test_each_unsupported_feature_is_refused_by_name(changes: dict[str, object], feature: str) -> None:
    assert [refusal.feature for refusal in config_refusals(config(**changes), Settings())] == [feature]


@pytest.mark.vllm
def test_returned_routed_experts_are_refused_since_vllm_wants_them_of_each_token_of_a_probe() -> None:
    from vllm.config import AuxOutputConfig

    made = config(aux_output_config=AuxOutputConfig(enable_return_routed_experts=True))
    assert [refusal.feature for refusal in config_refusals(made, Settings())] == ["routed_experts"]
    assert list(config_refusals(config(aux_output_config=AuxOutputConfig()), Settings())) == []


def layer(**changes: Any) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return FullAttentionSpec(
        **{"block_size": 32, "num_kv_heads": 2, "head_size": 64, "dtype": torch.float32, **changes}
    )


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("second", "feature", "why"),
    [
        ({}, None, None),
        ({"num_kv_heads": 4}, "head_groups", "the layers differ in their KV heads or head sizes"),
        ({"sliding_window": 64}, "attention", "some layers use a sliding window or chunks"),
        ({"non_causal": True}, "attention", "some layers read tokens that come later"),
    ],
    ids=["alike", "other KV heads", "partly sliding", "not causal"],
)
def test_layers_that_plans_cannot_name_together_are_refused_with_a_sentence(
    second: dict[str, Any], feature: str | None, why: str | None
) -> None:
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec, UniformTypeKVCacheSpecs

    specs = {"layer.0": layer(), "layer.1": layer(**second)}
    refused = [(refusal.feature, refusal.why) for refusal in cache_refusals(specs)]
    assert refused == ([] if feature is None else [(feature, why)])
    # what the scheduler makes of the same layers, which vLLM has put into one group
    group = KVCacheGroupSpec(list(specs), UniformTypeKVCacheSpecs(block_size=32, kv_cache_specs=specs))
    assert layer_specs(KVCacheConfig(10, [], [group])) == specs
    assert layer_specs(KVCacheConfig(10, [], [KVCacheGroupSpec(["layer.0"], layer())])) == {"layer.0": layer()}


@pytest.mark.vllm
def test_other_caches_are_named() -> None:
    import torch
    from vllm.v1.kv_cache_interface import SlidingWindowSpec

    sliding = SlidingWindowSpec(block_size=32, num_kv_heads=2, head_size=64, dtype=torch.float32, sliding_window=64)
    (hybrid,) = cache_refusals({"layer.0": layer(), "layer.1": sliding})
    assert (hybrid.feature, hybrid.why) == (
        "kv_cache_groups",
        "some layers' caches are not plain full attention: SlidingWindowSpec",
    )
    (alone,) = cache_refusals({"layer.0": sliding, "layer.1": sliding})
    assert alone.why == "the layers' cache is a SlidingWindowSpec, not plain full attention"
    assert [refusal.why for refusal in cache_refusals({})] == ["no layer has a cache"]


def test_lockstep_needs_synchronous_scheduling() -> None:
    assert [refusal.feature for refusal in config_refusals(config(), Settings(lockstep=True))] == ["lockstep"]


@pytest.mark.vllm
def test_what_is_refused_runs_as_stock_and_is_a_metric(model: str, said: list[str]) -> None:
    port = free_port()
    engine = RunningEngine(model, None, {"METRICS_PORT": str(port)}, worker_cls="auto")
    try:
        assert engine.scheduler._hooks is None
        assert len(engine.generate([prompt(1, 20)], 5)[0].tokens) == 5
        url = f"http://127.0.0.1:{port}"
        assert metric(url, "plugin_active") == 0
        refused = [sample for sample in samples(url) if sample.name == "crystalkv_engine_refused"]
        assert [(sample.labels["feature"], sample.value) for sample in refused] == [("worker", 1)]
    finally:
        engine.close()
    assert len(said) == 1
    assert "--worker-cls" in said[0]


@pytest.mark.vllm
def test_strict_ends_vllm(model: str) -> None:
    from crystal_kv_vllm.compat import NotSupportedError

    with pytest.raises(NotSupportedError, match="--worker-cls"):
        RunningEngine(model, None, {"STRICT": "1"}, worker_cls="auto")
