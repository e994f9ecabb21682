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

from crystal_kv_vllm.merger import MergeLayer, Merger  # noqa: E402
from crystal_kv_vllm.repetition import RESOLUTION, Rotation, most_repeated  # noqa: E402
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


def dropped_one_by_one(keys: Any, positions: Any, candidates: int, count: int) -> list[int]:
    """The rule of `most_repeated`, token by token, for one head."""
    unit = keys / keys.norm(dim=-1, keepdim=True)
    order = []
    for token in range(candidates):
        later = [float(unit[token] @ unit[o]) for o in range(len(keys)) if positions[o] > positions[token]]
        order.append((-round(max(later, default=-1.0) / RESOLUTION), int(positions[token]), token))
    return sorted(token for _, _, token in sorted(order)[:count])


@pytest.mark.parametrize("max_similarities", [1 << 25, 100])
def test_the_tokens_whose_keys_later_tokens_repeat_go_and_of_equal_ones_the_oldest(
    monkeypatch: pytest.MonkeyPatch, max_similarities: int
) -> None:
    monkeypatch.setattr("crystal_kv_vllm.repetition.MAX_SIMILARITIES", max_similarities)
    torch.manual_seed(0)
    words = torch.randn(5, 8)
    # the same few words again and again, so that there are ties
    keys = words[torch.randint(5, (2, 24))] + 0.05 * torch.randn(2, 24, 8).round()
    positions = torch.stack([torch.randperm(40)[:24], torch.arange(24)]).int()
    marked = most_repeated(keys, positions, 16, 6)
    assert marked.shape == (2, 16)
    for head in range(2):
        assert marked[head].nonzero().flatten().tolist() == dropped_one_by_one(keys[head], positions[head], 16, 6)


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


def test_keys_and_values_of_a_token_stay_together_and_blocks_beside_stay_as_they_are() -> None:
    torch.manual_seed(1)
    cache = torch.randn(10, 2, 4, 6)
    layer = MergeLayer(cache[..., :3], cache[..., 3:], None)
    before = cache.clone()
    merger = Merger([layer])
    order = MergeCommand([TableEntry(0, 7)], [TableEntry(1, 2), TableEntry(2, 5)], [TableEntry(3, 4)], 4)
    merger.merge("a", order)
    for head in range(2):
        old = torch.cat([before[b, head] for b in (7, 2, 5)])
        all_keys = torch.cat([old, before[4, head]])[:, :3]
        gone = dropped_one_by_one(all_keys, torch.arange(16), 12, 8)
        kept = {tuple(old[token].tolist()) for token in range(12) if token not in gone}
        assert {tuple(token.tolist()) for token in cache[7, head]} == kept
    untouched = [0, 1, 3, 4, 6, 8, 9]
    assert torch.equal(cache[untouched], before[untouched])
    # the next merge knows where the tokens of the first one come from
    merger.merge("a", MergeCommand([TableEntry(0, 7)], [TableEntry(3, 4)], [], 4))
    positions = merger._positions["a"][0]
    assert all(len(set(head)) == 4 and max(head) < 16 for head in positions[0].tolist())
    merger.forget(["a"])
    assert not merger._positions


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
