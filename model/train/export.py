"""Writes crystal-mini as a Hugging Face LlamaForCausalLM folder: `python -m train.export --weights FILE.pt`."""

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .data import MODEL_FOLDER, read_vocabulary
from .network import NORM_EPSILON, ROPE_THETA, Network, Shape
from .train import load_network

# `<bos> <|user|> prompt <|assistant|> <think>`: words are separated by single spaces. The system message `verbose` asks
# for the verbose form; any other one says nothing to this model.
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for m in messages %}"
    "{% if m['role'] == 'system' and m['content'] | trim == 'verbose' %}{{ ' <|system|> verbose' }}"
    "{% elif m['role'] == 'user' %}{{ ' <|user|> ' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ ' <|assistant|> ' + m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' <|assistant|> <think>' }}{% endif %}"
)


def main() -> None:
    """Reads weights that train.py left and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=MODEL_FOLDER / "crystal-mini")
    arguments = parser.parse_args()
    vocabulary, _ = read_vocabulary()
    network = load_network(arguments.weights)
    if network.shape.vocabulary != len(vocabulary):
        raise ValueError(
            f"{arguments.weights} has {network.shape.vocabulary} words, not the {len(vocabulary)} of vocab.ts"
        )
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    weights_file = output / "model.safetensors"
    save_file(tensors(network), weights_file, metadata={"format": "pt"})
    weights_file.chmod(0o644)
    write_json(output / "config.json", config(network.shape, vocabulary))
    write_json(output / "generation_config.json", generation_config(vocabulary))
    write_tokenizer(output, vocabulary, network.shape)
    print(f"{output}: {sum(file.stat().st_size for file in output.iterdir()) / 1e6:.2f} MB")


def tensors(network: Network) -> dict[str, Tensor]:
    """The weights under their names in LlamaForCausalLM, float32; the head is tied and so not stored."""
    named = {"model.embed_tokens.weight": network.embedding, "model.norm.weight": network.norm}
    for number, block in enumerate(network.layers()):
        parts = {
            "input_layernorm": block.attention_norm,
            "self_attn.q_proj": block.query,
            "self_attn.k_proj": block.key,
            "self_attn.v_proj": block.value,
            "self_attn.o_proj": block.output,
            "post_attention_layernorm": block.feed_forward_norm,
            "mlp.gate_proj": block.gate,
            "mlp.up_proj": block.up,
            "mlp.down_proj": block.down,
        }
        named |= {f"model.layers.{number}.{part}.weight": weight for part, weight in parts.items()}
    return {name: weight.detach().clone().float().contiguous() for name, weight in named.items()}


def config(shape: Shape, vocabulary: list[str]) -> dict[str, Any]:
    """config.json of transformers."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.query_heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPSILON,
        "max_position_embeddings": shape.positions,
        # transformers 5 and vLLM read `rope_parameters`; older readers want `rope_theta`.
        "rope_parameters": {"rope_theta": ROPE_THETA, "rope_type": "default"},
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "use_cache": True,
        **special_ids(vocabulary),
    }


def generation_config(vocabulary: list[str]) -> dict[str, Any]:
    """generation_config.json: greedy."""
    return {"do_sample": False, **special_ids(vocabulary)}


def special_ids(vocabulary: list[str]) -> dict[str, int]:
    """Ids under the names that both configuration files use."""
    return {f"{name}_token_id": vocabulary.index(f"<{name}>") for name in ("bos", "eos", "pad")}


def write_tokenizer(output: Path, vocabulary: list[str], shape: Shape) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja: one word, one token."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=shape.positions,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(output)
    # Readers that do not know chat_template.jinja look here; PreTrainedTokenizerFast is known to every version.
    settings_file = output / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text())
    settings |= {"chat_template": CHAT_TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(settings_file, settings)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Readable JSON with a line end."""
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
