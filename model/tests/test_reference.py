"""golden.json and the numpy reference; needs numpy and safetensors only."""

import json
from typing import Any

import numpy as np
import pytest

import reference

GOLDEN: dict[str, Any] = json.loads(reference.GOLDEN.read_text())
CASES = pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])


@pytest.fixture(scope="module")
def model() -> reference.Reference:
    return reference.Reference()


def test_golden_belongs_to_the_weights() -> None:
    assert GOLDEN["weightsSha256"] == reference.weights_hash(), "run: python model/reference.py"


@CASES
def test_golden_is_what_the_reference_computes(model: reference.Reference, case: dict[str, Any]) -> None:
    tokens = GOLDEN["prompt"] + case["continuation"]
    visible = reference.mask(len(tokens), case["hiddenKeys"], case["fromQuery"])
    logits = model.logits(tokens, visible)
    start = len(GOLDEN["prompt"])
    assert logits[start - 1 : -1].argmax(axis=-1).tolist() == case["continuation"]
    assert len(case["logits"]) == 6
    for entry in case["logits"]:
        np.testing.assert_allclose(logits[entry["position"]], entry["values"], atol=1e-5)


def test_eviction_changes_the_answer() -> None:
    full, evicted = GOLDEN["cases"]
    assert full["continuation"] != evicted["continuation"]


def test_eviction_leaves_earlier_queries_alone(model: reference.Reference) -> None:
    tokens = GOLDEN["prompt"]
    hidden, from_query = list(range(16, 48)), 64
    with_all = model.logits(tokens)
    without = model.logits(tokens, reference.mask(len(tokens), hidden, from_query))
    np.testing.assert_array_equal(with_all[:from_query], without[:from_query])
    assert np.abs(with_all[from_query:] - without[from_query:]).max() > 1e-3


def test_mask_ignores_keys_that_do_not_exist_yet() -> None:
    assert reference.mask(4, [2, 9], 3).tolist() == [[True] * 4] * 3 + [[True, True, False, True]]
