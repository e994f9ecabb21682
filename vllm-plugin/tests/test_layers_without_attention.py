"""A model some of whose layers have no attention: what the plugin announces is what it measures."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from engine import BLOCK_SIZE, LOCKSTEP, RunningEngine, prompt
from scripted_peer import ScriptedPeer

from crystal_kv_vllm.gen import policy_pb2 as pb

pytestmark = pytest.mark.vllm

LAYERS, HEADS, KV_HEADS = 4, 4, 2
#: As in Llama-Nemotron models, whose architecture was searched for.
WITHOUT_ATTENTION = 1

#: Comes with such models; blocks are read like objects.
CONFIGURATION = """
from transformers import LlamaConfig


class Block(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class NasConfig(LlamaConfig):
    model_type = "nemotron-nas"

    def __init__(self, block_configs=(), **options):
        super().__init__(**options)
        self.block_configs = [Block({name: Block(part) for name, part in block.items()}) for block in block_configs]
"""


def block(layer: int) -> dict[str, Any]:
    without = layer == WITHOUT_ATTENTION
    groups = None if without else HEADS // KV_HEADS
    return {"attention": {"no_op": without, "n_heads_in_group": groups}, "ffn": {"no_op": False, "ffn_mult": 2.0}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, peer: ScriptedPeer) -> Iterator[RunningEngine]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "configuration_nas.py").write_text(CONFIGURATION)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["DeciLMForCausalLM"],
                "model_type": "nemotron-nas",
                "auto_map": {"AutoConfig": "configuration_nas.NasConfig"},
                "vocab_size": 175,
                "hidden_size": 128,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "num_key_value_heads": KV_HEADS,
                "head_dim": 32,
                "max_position_embeddings": 1024,
                "block_configs": [block(layer) for layer in range(LAYERS)],
            }
        )
    )
    dummy = {"load_format": "dummy", "skip_tokenizer_init": True, "trust_remote_code": True}
    engine = RunningEngine(str(folder), peer, LOCKSTEP, **dummy)
    try:
        yield engine
    finally:
        engine.close()


def test_every_announced_head_group_is_measured_and_no_other(engine: RunningEngine, peer: ScriptedPeer) -> None:
    assert peer.hello is not None
    assert peer.hello.layers == LAYERS - 1
    assert peer.hello.head_groups == (LAYERS - 1) * KV_HEADS
    engine.generate([prompt(1, 40)], 4)
    for _, entry in peer.requests[0].steps:
        assert len(entry.masses) == peer.hello.head_groups * -(-entry.computed_tokens // BLOCK_SIZE)


def test_the_head_groups_of_a_layer_behind_it_can_be_asked_for(engine: RunningEngine, peer: ScriptedPeer) -> None:
    engine.generate([prompt(1, 40)], 4)
    everything = [entry.masses for _, entry in peer.requests[0].steps]
    peer.reset()
    outbox = engine.hooks.reporter._outbox
    engine.hooks.session.on_configure(pb.Configure(head_groups=[5, 2], measure_every=1), outbox)
    try:
        engine.generate([prompt(1, 40)], 4)
        some = [entry.masses for _, entry in peer.requests[0].steps]
        blocks = 2
        assert some == [masses[5 * blocks :] + masses[2 * blocks : 3 * blocks] for masses in everything]
    finally:
        engine.hooks.session.on_configure(peer.configure, outbox)
