"""Which token ids end thinking, and which begin a new reasoning step."""

from typing import Any

from .settings import Settings
from .tracked import Markers


def read_markers(config: Any, settings: Settings) -> Markers:
    """From vLLM's reasoning parser where there is one, else from the texts of the settings.

    A text ends thinking only if it is one token of the model's: a model that does not know it writes it as several,
    which depend on what stands around them.
    """
    tokenizer = _tokenizer(config)
    single = (
        {} if tokenizer is None else _single_tokens(tokenizer, (*settings.end_of_thinking, *settings.segment_markers))
    )
    ends: list[tuple[int, ...]] = []
    reasoning = config.reasoning_config
    natural = None if reasoning is None else reasoning.natural_reasoning_end_token_ids
    if natural:
        ends.append(tuple(natural))
    else:
        ends += [(single[text],) for text in settings.end_of_thinking if text in single]
    return Markers(tuple(ends), frozenset(single[text] for text in settings.segment_markers if text in single))


def _tokenizer(config: Any) -> Any:
    if config.model_config.skip_tokenizer_init:
        return None
    from vllm.tokenizers import cached_tokenizer_from_config

    return cached_tokenizer_from_config(config.model_config)


def _single_tokens(tokenizer: Any, texts: tuple[str, ...]) -> dict[str, int]:
    """The texts that are one token."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    encoded = {text: tokenizer.encode(text, add_special_tokens=False) for text in texts}
    return {text: ids[0] for text, ids in encoded.items() if len(ids) == 1 and ids[0] != unknown}
