"""What a request says about its cache, from `vllm_xargs`."""

import re
from collections.abc import Mapping
from typing import Any

from .gen import policy_pb2 as pb
from .protocol import MODES

_MODES = {word: mode for mode, word in MODES.items()}
_CHOICE = re.compile(r"(\d+)_")


def request_options(xargs: Mapping[str, Any] | None) -> tuple[str, pb.RequestOptions]:
    """The gateway's id (empty: none) and the options. What is not valid is left out: the gateway has checked it."""
    xargs = xargs or {}
    options = pb.RequestOptions()
    profile, budget, mode = (xargs.get(f"crystalkv_{name}") for name in ("profile", "budget_tokens", "mode"))
    if isinstance(profile, str):
        options.profile = profile
    if isinstance(budget, int | float) and 0 <= budget < 2**32 and int(budget) == budget:
        options.budget_tokens = int(budget)
    if isinstance(mode, str):
        options.mode = _MODES.get(mode, pb.MODE_UNSPECIFIED)
    name = xargs.get("crystalkv_id")
    return (name if isinstance(name, str) else ""), options


def choice_index(request_id: str) -> int:
    """Which of the n choices of an API request: vLLM prefixes the ids of `n` > 1 with it."""
    match = _CHOICE.match(request_id)
    return int(match.group(1)) if match else 0
