"""The same model in transformers, with a mask of its own for each query: what eviction has to be equal to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scripted_peer import RequestHistory
from transformers import AutoModelForCausalLM


@dataclass
class Forward:
    #: [tokens, vocabulary]
    logits: torch.Tensor
    #: [layers, query heads, tokens, tokens]
    attention: torch.Tensor


class Reference:
    def __init__(self, model: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def forward(self, tokens: Sequence[int], visible: torch.Tensor) -> Forward:
        """visible: bool [tokens, tokens], query by key."""
        mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
        with torch.no_grad():
            result = self._model(
                torch.tensor([list(tokens)]), attention_mask=mask[None, None], output_attentions=True, use_cache=False
            )
        return Forward(result.logits[0], torch.cat(result.attentions))


def visible_keys(length: int, history: RequestHistory, block_size: int) -> torch.Tensor:
    """What each query could see of a request: everything before it but the blocks that were holes at its step."""
    visible = torch.ones(length, length, dtype=torch.bool).tril()
    computed = {step: entry.computed_tokens for step, entry in history.steps}
    for block, since in history.evicted.items():
        # the first token that was computed without the block
        steps = [step for step in computed if step >= since]
        if steps:
            query = computed[min(steps)] - 1
            visible[query:, block * block_size : (block + 1) * block_size] = False
    return visible
