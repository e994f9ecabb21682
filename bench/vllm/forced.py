"""A logits processor for vLLM: requests that carry tokens generate just these."""

from collections.abc import Callable

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

Force = Callable[[list[int], torch.Tensor], torch.Tensor]

#: In `extra_args`: what to generate.
FORCED_TOKENS = "forced_tokens"


class ForcedTokens(AdapterLogitsProcessor):
    """Log-probabilities that vLLM reports are computed before it: the model's own."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Force | None:
        tokens: list[int] | None = (params.extra_args or {}).get(FORCED_TOKENS)
        if tokens is None:
            return None

        def force(output: list[int], logits: torch.Tensor) -> torch.Tensor:
            forced = torch.full_like(logits, -torch.inf)
            forced[tokens[len(output)]] = 0.0
            return forced

        return force
