"""An answer probe: a fork of a running request that is told to stop thinking, and whose answer nobody sees.

What its first tokens attend to is what the answer would need now. In vLLM it is an ordinary request whose prefix is
"found in the cache": the blocks of its parent, holes included.
"""

from collections.abc import Sequence

from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request

#: Request ids of probes begin with it; vLLM's own begin with the name of an API or with what a client chose.
PREFIX = "crystal-kv-probe-"


def is_probe(request_id: str) -> bool:
    return request_id.startswith(PREFIX)


def can_fork(parent: Request) -> bool:
    """Whether the tokens of a request say all about its cache."""
    return not parent.mm_features and parent.prompt_embeds is None and parent.pooling_params is None


def fork_request(handle: int, parent: Request, suffix: Sequence[int], tokens: int) -> Request:
    """A request with the parent's tokens so far and `suffix`, which generates at most `tokens` greedily.

    It stops where the parent could stop, also when that ignores the end of the sequence. It reads nothing from the
    prefix cache by itself, and has no block hasher: it must not publish anything either.
    """
    params = parent.sampling_params
    return Request(
        request_id=f"{PREFIX}{handle}",
        prompt_token_ids=[*parent.all_token_ids, *suffix],
        sampling_params=SamplingParams(
            temperature=0.0,
            max_tokens=tokens,
            stop_token_ids=sorted(params.all_stop_token_ids) if params is not None else [],
            detokenize=False,
            skip_reading_prefix_cache=True,
        ),
        pooling_params=None,
        client_index=parent.client_index,
        lora_request=parent.lora_request,
        cache_salt=parent.cache_salt,
        priority=parent.priority,
    )
