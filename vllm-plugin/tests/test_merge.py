"""A merge of KV blocks is attention in which each layer and KV head masks the tokens that it dropped."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: run with the Python that scripts/vllm-env.sh prints")

from conftest import ROOT  # noqa: E402
from engine import BLOCK_SIZE, RunningEngine  # noqa: E402
from scripted_peer import RequestHistory, ScriptedPeer, keep_at_most  # noqa: E402

from crystal_kv_vllm.cache_stack import CacheLayer, stack_layers  # noqa: E402
from crystal_kv_vllm.gen import policy_pb2 as pb  # noqa: E402
from crystal_kv_vllm.keep_rule import MOST_DISTINCT, KeepRule, KeepStage, KeepTerm  # noqa: E402
from crystal_kv_vllm.merger import Merger  # noqa: E402
from crystal_kv_vllm.rotation import Rotation  # noqa: E402
from crystal_kv_vllm.startup import merges_keys_of  # noqa: E402
from crystal_kv_vllm.worker_io import MergeCommand, TableEntry  # noqa: E402


def load(name: str, path: Path) -> ModuleType:
    """A module of crystal-mini's, by another name: the tests have a `reference` of their own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("neox", [True, False])
def test_a_rotation_is_undone_also_of_a_part_of_the_channels(neox: bool) -> None:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    with set_current_vllm_config(VllmConfig()):
        rotary = RotaryEmbedding(16, 12, 64, 10000.0, neox, torch.float32)
    keys = torch.randn(9, 2 * 16)
    positions = torch.arange(9) * 7
    _, rotated = rotary.forward_native(positions, keys.clone(), keys.clone())
    plain = Rotation(rotary.cos_sin_cache, neox).undo(rotated.view(9, 2, 16), positions[:, None].expand(9, 2))
    assert (rotated - keys).abs().max() > 0.5
    assert torch.allclose(plain.flatten(1), keys, atol=1e-5)


def by(statistic: "pb.Statistic.ValueType") -> KeepRule:
    return KeepRule((KeepStage(1.0, (KeepTerm(statistic, 1.0, pb.SCALE_UNSPECIFIED, 0),), sampled=False),), seed=0)


NEWEST = by(pb.STATISTIC_POSITION)
LAYERS, HEADS, SIZE, WIDTH = 3, 2, 4, 8


def token_name(layer: int, head: int, position: int) -> float:
    """A number by which a test finds a token again."""
    return layer * 1000 + head * 100 + position


def caches(layout: str) -> list[CacheLayer]:
    """Of ten blocks; block 9 - i holds logical block i, and each value says which token it belongs to."""
    torch.manual_seed(1)
    whole = torch.randn(LAYERS, 10, HEADS, 2, WIDTH, SIZE) if layout == "by column" else None
    keys = torch.randn(LAYERS, 10, HEADS, SIZE, WIDTH) if whole is None else whole[:, :, :, 0].mT
    values = torch.zeros(LAYERS, 10, HEADS, SIZE, WIDTH) if whole is None else whole[:, :, :, 1].mT
    for layer in range(LAYERS):
        for head in range(HEADS):
            for position in range(10 * SIZE):
                values[layer, 9 - position // SIZE, head, position % SIZE] = token_name(layer, head, position)
    if layout == "one by one":
        return [CacheLayer(str(i), keys[i].clone(), values[i].clone(), None) for i in range(LAYERS)]
    return [CacheLayer(str(i), keys[i], values[i], None) for i in range(LAYERS)]


def entries(*blocks: int) -> list[TableEntry]:
    return [TableEntry(block, 9 - block) for block in blocks]


def held(layer: CacheLayer, number: int, head: int, *blocks: int) -> list[int]:
    """Positions of the tokens in some blocks."""
    names = torch.cat([layer.values[9 - block, head, :, 0] for block in blocks]).tolist()
    return [int(name - token_name(number, head, 0)) for name in names]


@pytest.mark.parametrize("layout", ["by token", "by column", "one by one"])
def test_a_merge_moves_keys_and_values_together_and_leaves_other_blocks_as_they_are(layout: str) -> None:
    layers = caches(layout)
    assert len(stack_layers(layers)) == (LAYERS if layout == "one by one" else 1)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in layers]
    Merger(stack_layers(layers)).merge("a", MergeCommand(entries(0), entries(1, 2), entries(3), SIZE, NEWEST))
    for number, (layer, (keys, values)) in enumerate(zip(layers, before, strict=True)):
        for head in range(HEADS):
            assert held(layer, number, head, 0) == [8, 9, 10, 11]
            assert torch.equal(layer.keys[9, head], keys[7, head])
        others = [block for block in range(10) if block != 9]
        assert torch.equal(layer.keys[others], keys[others])
        assert torch.equal(layer.values[others], values[others])


def test_each_head_keeps_what_later_tokens_repeat_least_and_the_next_merge_knows_where_they_are() -> None:
    layers = caches("by token")
    for number, layer in enumerate(layers):
        for head in range(HEADS):
            for position in range(5 * SIZE):
                # of two alike tokens the later one stays; they are others in each head
                word = (position + head + number) % 10
                layer.keys[9 - position // SIZE, head, position % SIZE] = torch.eye(10, WIDTH)[word] + word / 100
    merger = Merger(stack_layers(layers))
    merger.merge("a", MergeCommand(entries(0, 2), entries(1), entries(3, 4), SIZE, MOST_DISTINCT))
    for number, layer in enumerate(layers):
        for head in range(HEADS):
            # the first ten tokens are all repeated, the oldest of them go
            assert held(layer, number, head, 0, 2) == [4, 5, 6, 7, 8, 9, 10, 11]
    merger.merge("a", MergeCommand(entries(0), entries(2, 3), entries(4), SIZE, NEWEST))
    for number, layer in enumerate(layers):
        for head in range(HEADS):
            assert held(layer, number, head, 0) == [12, 13, 14, 15]
    merger.merge("a", MergeCommand(entries(0), entries(4), [], SIZE, by(pb.STATISTIC_RANDOM)))
    drawn = [held(layer, number, head, 0) for number, layer in enumerate(layers) for head in range(HEADS)]
    assert all(len(set(one)) == SIZE and min(one) >= 12 and max(one) < 20 for one in drawn)
    assert len({tuple(one) for one in drawn}) > 1, "each head draws for itself"


def test_blocks_of_the_scheduler_may_be_several_of_the_kernel() -> None:
    layers = caches("by token")
    command = MergeCommand([TableEntry(0, 4)], [TableEntry(1, 3)], [], 2 * SIZE, NEWEST)
    Merger(stack_layers(layers)).merge("a", command)
    for number, layer in enumerate(layers):
        # of the kernel's blocks 8 and 9 take what was in 6 and 7, whose tokens are named after other blocks here
        assert held(layer, number, 1, 1, 0) == [12, 13, 14, 15, 8, 9, 10, 11]


def test_only_models_whose_rotary_positions_are_known_are_merged() -> None:
    def model(name: str, mrope: bool = False) -> SimpleNamespace:
        return SimpleNamespace(architecture=name, uses_mrope=mrope)

    assert merges_keys_of(model("Qwen3ForCausalLM"))
    assert not merges_keys_of(model("Qwen3ForCausalLM", mrope=True))
    assert not merges_keys_of(model("FalconForCausalLM"))


def expected_visible(model: Any, merging: ModuleType, tokens: list[int], prompt: int, history: RequestHistory) -> Any:
    """Bool [layers, KV heads, tokens, tokens], after the merges of a request in the reference's own arithmetic."""
    visible = np.ones((model.layers, model.key_value_heads, len(tokens), len(tokens)), np.bool_)
    computed = {step: entry.computed_tokens for step, entry in history.steps}
    for since, merge in history.merges:
        query = computed[min(step for step in computed if step >= since)] - 1
        named = [*merge.into, *getattr(merge, "from")]
        full = range(-(-prompt // BLOCK_SIZE), query // BLOCK_SIZE)
        keys = model.keys(tokens[:query], visible[:, :, :query, :query])
        for layer in range(model.layers):
            for head in range(model.key_value_heads):

                def held(blocks: Any, seen: Any) -> list[int]:
                    places = [b * BLOCK_SIZE + i for b in blocks for i in range(BLOCK_SIZE)]
                    return [place for place in places if seen[place]]

                seen = visible[layer, head, query]
                # a merged block holds tokens of earlier ones, which are holes by now
                own = held(range(full.start, max(named) + 1), seen)
                beside = held([block for block in full if block > max(named)], seen)
                gone = merging.drop(keys[layer, head], own, beside, len(getattr(merge, "from")) * BLOCK_SIZE)
                visible[layer, head, query:, gone] = False
    return visible


@pytest.mark.vllm
def test_logits_equal_a_forward_with_the_dropped_keys_masked_in_each_head(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    reference = load("reference", ROOT / "model" / "reference.py")
    merging = load("merge_reference", ROOT / "model" / "merge_reference.py")
    engine = start_engine()
    peer.decide = keep_at_most(5, merge=True)
    prompt = engine.program(7, 20)
    output = engine.generate([prompt], 320, logits=True)[0]
    (history,) = peer.requests
    assert len(history.merges) >= 3
    model = reference.Reference()
    sequence = prompt + output.tokens
    logits = model.logits(sequence, expected_visible(model, merging, sequence, len(prompt), history))
    for place, got in enumerate(output.logits):
        row = np.array([got[token] for token in range(len(got))])
        assert np.abs(row - logits[len(prompt) + place - 1]).max() < 1e-3, f"token {place}"
    # the check can fail: with nothing masked the logits are others
    assert np.abs(model.logits(sequence) - logits).max() > 0.05


@pytest.mark.vllm
def test_a_block_that_changes_is_forgotten_by_the_prefix_cache(
    start_engine: Callable[..., RunningEngine], peer: ScriptedPeer
) -> None:
    engine = start_engine()
    peer.decide = keep_at_most(5, merge=True)
    prompt = engine.program(8, 20)
    output = engine.generate([prompt], 320)[0]
    (history,) = peer.requests
    assert history.merges
    # the same request again, its own output in the prompt: what was merged must not be found
    again = engine.generate([[*prompt, *output.tokens[:200]]], 1)
    assert again
    hits = peer.requests[-1].started.computed_tokens
    assert hits <= len(prompt)
