"""A vLLM that does not name the plugin's classes, or of which something is refused, is stock in every part."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from engine import RunningEngine, engine_arguments, prompt

PACKAGE = Path(__file__).parent.parent

#: A vLLM that is started without the plugin's options, where the plugin is installed and enabled.
STOCK = """
import sys
from vllm import LLM
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.kv_cache_spec_registry import _REGISTRY_KVCACHESPEC_LIST

if __name__ == "__main__":
    llm = LLM(**{arguments})
    core = llm.llm_engine.engine_core.engine_core
    groups = core.scheduler.kv_cache_config.kv_cache_groups
    assert [type(group.kv_cache_spec) for group in groups] == [FullAttentionSpec]
    assert type(core.scheduler).__module__.startswith("vllm."), type(core.scheduler)
    layers = core.vllm_config.compilation_config.static_forward_context.values()
    assert {{layer.get_attn_backend().__module__ for layer in layers}} == {{"vllm.v1.attention.backends.cpu_attn"}}
    assert not any(backend.is_overridden() for backend in AttentionBackendEnum)
    assert all(spec.__module__.startswith("vllm.") for spec in _REGISTRY_KVCACHESPEC_LIST)
    assert not [name for name in sys.modules if name.startswith("crystal_kv_vllm.")]
    print("stock")
"""


def parts(engine: RunningEngine) -> dict[str, Any]:
    """What the plugin may have changed of an engine in this process."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    groups = engine.scheduler.kv_cache_config.kv_cache_groups
    layers = engine.core.vllm_config.compilation_config.static_forward_context.values()
    return {
        "spec": " ".join(type(group.kv_cache_spec).__name__ for group in groups),
        "manager": type(engine.manager).__name__,
        "backends": {layer.get_attn_backend().__name__ for layer in layers},
        "overridden": [backend for backend in AttentionBackendEnum if backend.is_overridden()],
    }


STOCK_PARTS = {
    "spec": "FullAttentionSpec",
    "manager": "FullAttentionManager",
    "backends": {"CPUAttentionBackend"},
    "overridden": [],
}


#: Two layers of three see only the newest tokens.
PARTLY_SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 64}


def test_vllm_loads_nothing_of_the_package_by_itself() -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert "entry-points" not in project


@pytest.mark.vllm
def test_a_process_that_does_not_name_the_plugins_classes_is_stock(model: str, tmp_path: Path) -> None:
    script = tmp_path / "stock.py"
    script.write_text(STOCK.format(arguments=engine_arguments(model)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout.endswith("stock\n"), done.stderr[-4000:]


@pytest.mark.vllm
def test_an_engine_beside_one_with_the_plugin_is_stock(model: str) -> None:
    engine = RunningEngine(model, None, {"STRICT": "1"})
    try:
        expected = engine.generate([prompt(1, 40)], 8)[0].tokens
        assert parts(engine) == {
            "spec": "CrystalSpec",
            "manager": "CrystalManager",
            "backends": {"CrystalCPUBackend"},
            "overridden": [],
        }
    finally:
        engine.close()
    engine = RunningEngine(model, None, {}, scheduler_cls=None, worker_cls="auto")
    try:
        assert parts(engine) == STOCK_PARTS
        assert engine.generate([prompt(1, 40)], 8)[0].tokens == expected
    finally:
        engine.close()


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("settings", "overrides"),
    [
        ({"ENABLED": "0"}, {}),
        ({}, {"scheduler_cls": None}),
        ({}, {"worker_cls": "auto"}),
        ({}, {"hf_overrides": PARTLY_SLIDING}),
    ],
    ids=["switched off", "the worker class alone", "the scheduler class alone", "refused for its layers"],
)
def test_an_engine_in_which_the_plugin_does_not_act_is_stock(
    model: str, settings: dict[str, str], overrides: dict[str, Any]
) -> None:
    engine = RunningEngine(model, None, settings, **overrides)
    try:
        found = parts(engine)
        # vLLM's own scheduler knows of none
        assert getattr(engine.scheduler, "_hooks", None) is None
        if "hf_overrides" in overrides:
            # what the layers' caches are is known only when the layers are there
            assert all(name.startswith("Crystal") for name in found["backends"])
            assert "Crystal" not in found["spec"] + found["manager"]
        else:
            assert found == STOCK_PARTS
        assert len(engine.generate([prompt(1, 40)], 8)[0].tokens) == 8
    finally:
        engine.close()


@pytest.mark.vllm
def test_a_renamed_attribute_of_vllm_refuses(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.worker.gpu.block_table import BlockTables

    from crystal_kv_vllm.compat import missing_names

    assert missing_names() == []

    class Renamed:
        """A later version's."""

        def __init__(self) -> None:
            self.tables: list[Any] = []

    Renamed.__module__ = BlockTables.__module__
    monkeypatch.setattr("vllm.v1.worker.gpu.block_table.BlockTables", Renamed)
    monkeypatch.delattr("vllm.v1.core.block_pool.BlockPool._maybe_evict_cached_block")
    assert missing_names() == [
        "vllm.v1.core.block_pool.BlockPool._maybe_evict_cached_block",
        "vllm.v1.worker.gpu.block_table.BlockTables.block_tables",
    ]
    monkeypatch.undo()
    monkeypatch.setattr("vllm.v1.worker.gpu.block_table.BlockTables", Renamed)
    engine = RunningEngine(model, None, {})
    try:
        assert engine.scheduler._hooks is None
        assert parts(engine) == STOCK_PARTS
        assert len(engine.generate([prompt(1, 40)], 8)[0].tokens) == 8
    finally:
        engine.close()
