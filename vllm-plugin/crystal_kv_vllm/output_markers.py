"""The token ids that end thinking, and those after which a new reasoning step begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .settings import Settings


@dataclass(frozen=True)
class OutputMarkers:
    """Token ids that structure an output."""

    #: Sequences that end the thinking phase.
    end_of_thinking: tuple[tuple[int, ...], ...] = ()
    #: What a probe appends to end the thinking; empty: there are no probes.
    probe_suffix: tuple[int, ...] = ()
    #: Tokens after which a new reasoning step begins.
    segments: frozenset[int] = frozenset()

    @cached_property
    def last(self) -> frozenset[int]:
        """Tokens at which a look back for an end of thinking pays."""
        return frozenset(end[-1] for end in self.end_of_thinking)

    @cached_property
    def worth_a_look(self) -> frozenset[int]:
        """All other tokens mean nothing by themselves."""
        return self.segments | self.last

    def ends_thinking(self, tokens: Sequence[int], length: int) -> bool:
        """Whether the first `length` tokens end with an end of thinking."""
        return any(_ends_with(tokens, length, end) for end in self.end_of_thinking)


def read_output_markers(config: Any, settings: Settings) -> OutputMarkers:
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
    suffix = ends[0] if ends else ()
    if ends and settings.probe_suffix is not None and tokenizer is not None:
        suffix = _encode_before_text(tokenizer, settings.probe_suffix)
    segments = frozenset(single[text] for text in settings.segment_markers if text in single)
    return OutputMarkers(tuple(ends), suffix, segments)


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


def _encode_before_text(tokenizer: Any, text: str) -> tuple[int, ...]:
    """A tokenizer may cut line ends in another way when nothing comes after them: hence the letter."""
    letter = tokenizer.encode("A", add_special_tokens=False)
    ids = tokenizer.encode(f"{text}A", add_special_tokens=False)
    return tuple(ids[:-1] if len(letter) == 1 else tokenizer.encode(text, add_special_tokens=False))


def _ends_with(tokens: Sequence[int], length: int, end: Sequence[int]) -> bool:
    """Whether the first `length` tokens end with `end`."""
    start = length - len(end)
    return start >= 0 and all(tokens[start + i] == token for i, token in enumerate(end))
