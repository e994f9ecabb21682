"""golden-merged.json and the rule of merges; needs numpy and safetensors only."""

import json
from typing import Any

import numpy as np

import merge_reference
import reference

GOLDEN: dict[str, Any] = json.loads(merge_reference.GOLDEN.read_text())


def test_golden_belongs_to_the_weights() -> None:
    assert GOLDEN["weightsSha256"] == reference.weights_hash(), "run: python model/merge_reference.py"


def test_golden_is_what_the_reference_computes_with_the_dropped_keys_masked() -> None:
    model = reference.Reference()
    tokens = GOLDEN["tokens"]
    visible = np.ones((model.layers, model.key_value_heads, len(tokens), len(tokens)), np.bool_)
    for merge in GOLDEN["merges"]:
        for layer, heads in enumerate(merge["dropped"]):
            for head, dropped in enumerate(heads):
                assert len(dropped) == merge["freed"] * reference.BLOCK
                assert visible[layer, head, -1, dropped].all(), "nothing is dropped twice"
                visible[layer, head, merge["at"] :, dropped] = False
    logits = model.logits(tokens, visible)
    assert len(GOLDEN["logits"]) == 8
    for entry in GOLDEN["logits"]:
        np.testing.assert_allclose(logits[entry["position"]], entry["values"], atol=1e-5)


def test_a_mask_of_one_head_changes_the_logits_of_later_queries_only() -> None:
    model = reference.Reference()
    tokens = GOLDEN["tokens"][:80]
    visible = np.ones((model.layers, model.key_value_heads, 80, 80), np.bool_)
    visible[1, 0, 60:, 20:50] = False
    full, masked = model.logits(tokens), model.logits(tokens, visible)
    np.testing.assert_array_equal(full[:60], masked[:60])
    assert np.abs(full[60:] - masked[60:]).max() > 1e-3


def test_of_repeated_keys_the_oldest_go_and_the_newest_stays() -> None:
    keys = np.eye(6)[[0, 1, 0, 2, 0, 3]] * np.arange(1, 7)[:, None]
    assert merge_reference.drop(keys, [0, 1, 2, 3], [4, 5], 2) == [0, 2]
    assert merge_reference.drop(keys, [0, 2, 4, 5], [], 1) == [0]
    assert merge_reference.drop(keys, [1, 3], [0, 2, 4], 1) == [1]
