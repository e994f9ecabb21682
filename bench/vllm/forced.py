"""A logits processor for vLLM: requests that carry tokens generate just these, and tell what the model thought of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

Force = Callable[[list[int], torch.Tensor], torch.Tensor]

#: In `extra_args`: what to generate; the file for what the model thought of each token, written with the last one; and
#: the file of the distributions to compare with, and whether it is to be written instead.
FORCED_TOKENS, THOUGHTS, REFERENCE, REFERS = "forced_tokens", "thoughts", "reference", "refers"


class ForcedTokens(AdapterLogitsProcessor):
    """What it sees are the model's own logits: nothing else works on them in these requests."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Force | None:
        arguments = params.extra_args or {}
        tokens: list[int] | None = arguments.get(FORCED_TOKENS)
        if tokens is None:
            return None
        thoughts = Thoughts(len(tokens), **{name: arguments[name] for name in (THOUGHTS, REFERENCE, REFERS)})

        def force(output: list[int], logits: torch.Tensor) -> torch.Tensor:
            thoughts.add(len(output), logits)
            forced = torch.full_like(logits, -torch.inf)
            forced[tokens[len(output)]] = 0.0
            return forced

        return force


class Thoughts:
    """Of one request: each token's most likely alternative, and how far its distribution is from the reference's."""

    def __init__(self, tokens: int, thoughts: str, reference: str, refers: bool) -> None:
        """refers: the distributions are written to `reference`, as float32 [tokens, vocabulary], not compared with it."""
        self._tokens = tokens
        self._file = Path(thoughts)
        self._reference = reference
        self._refers = refers
        self._distributions: NDArray[np.float32] | None = None
        self._most_likely: list[int] = []
        #: Exact Kullback-Leibler divergence from the reference, in nats.
        self._kl: list[float] = []

    def add(self, place: int, logits: torch.Tensor) -> None:
        # a request that was preempted asks again
        del self._most_likely[place:], self._kl[place:]
        own = logits.float().log_softmax(-1)
        self._most_likely.append(int(own.argmax()))
        if self._distributions is None:
            mode = "w+" if self._refers else "r"
            shape = (self._tokens, own.shape[0])
            self._distributions = np.memmap(self._reference, np.float32, mode, shape=shape)
        if self._refers:
            self._distributions[place] = own.numpy()
            self._kl.append(0.0)
        else:
            full = torch.tensor(self._distributions[place])
            self._kl.append(float((full.exp() * (full - own)).sum()))
        if place == self._tokens - 1:
            if self._refers and isinstance(self._distributions, np.memmap):
                self._distributions.flush()
            self._file.write_text(json.dumps({"most_likely": self._most_likely, "kl": self._kl}))
