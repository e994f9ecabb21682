"""What the environment says, read once for each process."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_type_hints


class SettingsError(ValueError):
    """A variable holds something else than it may; the message names variable, value and bounds."""


@dataclass(frozen=True)
class Settings:
    """The plugin's settings, each with its meaning. The variable of `enabled` is CRYSTALKV_ENABLED."""

    enabled: Annotated[bool, "0: stock vLLM."] = True
    policy_address: Annotated[str, "host:port of the policy service; empty: none."] = "localhost:50051"
    policy_token: Annotated[str | None, "Shared token of the policy service."] = None
    policy_token_file: Annotated[str | None, "File that holds the token."] = None
    policy_ca: Annotated[
        str | None, "PEM file of the authority that signed the service's certificate; turns TLS on."
    ] = None
    metrics_port: Annotated[
        int | None,
        "Port of the plugin's own `/metrics`; data-parallel rank n listens on the n-th port after it; 0: a free one.",
    ] = None
    metrics_host: Annotated[str, "Address of the plugin's own `/metrics`."] = "127.0.0.1"
    strict: Annotated[bool, "1: vLLM ends instead of running as stock where something is not supported."] = False
    lockstep: Annotated[
        bool, "1: wait for the plan of each step before the next one; for exactness tests, never for throughput."
    ] = False
    lockstep_timeout_ms: Annotated[int, "Longest such wait, 1 to 60000."] = 1000
    engine_id: Annotated[
        str, "Name at the policy service; data-parallel ranks are engines of their own, `vllm-dp1` and so on."
    ] = "vllm"
    sink_tokens: Annotated[int, "First tokens of a request, never evicted, 0 to 4096."] = 4
    recent_tokens: Annotated[
        int, "Newest tokens of a request, never evicted, 0 to 4096; nor are its prompt and its unfilled last block."
    ] = 64
    query_ring: Annotated[
        int, "Queries of a request whose attention is added up in one pass over its keys, 1 to 256."
    ] = 32
    end_of_thinking: Annotated[
        tuple[str, ...],
        "JSON list of texts that end thinking, if they are one token of the model's; "
        "vLLM's reasoning parser, where configured, comes first.",
    ] = ("</think>",)
    probe_suffix: Annotated[
        str | None,
        "Text with which a probe ends the thinking, so that the model answers; default: the first end of thinking.",
    ] = None
    segment_markers: Annotated[
        tuple[str, ...], "JSON list of texts after which a reasoning step begins, those that are one token."
    ] = ("\n\n", ".\n\n", "\n", ";")


@dataclass(frozen=True)
class Variable:
    """A setting, as the environment knows it."""

    name: str
    #: Empty where nothing is set.
    default: str
    meaning: str


def variables() -> Iterator[Variable]:
    """Every setting, in the order in which they are documented."""
    hints = get_type_hints(Settings, include_extras=True)
    for field in fields(Settings):
        yield Variable(f"CRYSTALKV_{field.name.upper()}", _text(field.default), hints[field.name].__metadata__[0])


def settings_table() -> str:
    """The documentation's table of variables, in Markdown."""
    rows = [(f"`{v.name}`", f"`{v.default}`" if v.default else "none", v.meaning) for v in variables()]
    lines = [("variable", "default", "meaning"), ("---", "---", "---"), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: object) -> str:
    """A value as it would stand in the environment."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case tuple():
            return json.dumps(value)
        case _:
            return str(value)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError. An empty variable counts as not set, except for POLICY_ADDRESS."""
    default = Settings()

    def text(name: str) -> str | None:
        return environ.get(f"CRYSTALKV_{name}") or None

    def refuse(name: str, value: str, wanted: str) -> SettingsError:
        return SettingsError(f"CRYSTALKV_{name} is {value!r}: {wanted}")

    def switch(name: str, otherwise: bool) -> bool:
        value = text(name)
        if value is None:
            return otherwise
        if value not in ("0", "1", "false", "true"):
            raise refuse(name, value, "0 or 1")
        return value in ("1", "true")

    def integer(name: str, low: int, high: int) -> int | None:
        value = text(name)
        if value is None:
            return None
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise refuse(name, value, f"an integer from {low} to {high}")
        return number

    def number(name: str, otherwise: int, low: int, high: int) -> int:
        value = integer(name, low, high)
        return otherwise if value is None else value

    def texts(name: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        value = text(name)
        if value is None:
            return otherwise
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if not isinstance(parsed, list) or not all(isinstance(item, str) and item for item in parsed):
            raise refuse(name, value, "a JSON list of non-empty strings")
        return tuple(parsed)

    address = environ.get("CRYSTALKV_POLICY_ADDRESS", default.policy_address)
    if address and not address.rpartition(":")[2].isdigit():
        raise refuse("POLICY_ADDRESS", address, "host:port, or empty for none")
    token, token_file = text("POLICY_TOKEN"), text("POLICY_TOKEN_FILE")
    if token_file is not None:
        if token is not None:
            raise SettingsError("CRYSTALKV_POLICY_TOKEN and CRYSTALKV_POLICY_TOKEN_FILE are both set: set one of them")
        try:
            token = Path(token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise refuse("POLICY_TOKEN_FILE", token_file, f"it cannot be read: {error.strerror}") from error
    engine_id = text("ENGINE_ID") or default.engine_id
    if len(engine_id) > 128:
        raise refuse("ENGINE_ID", engine_id, "at most 128 characters")
    return Settings(
        enabled=switch("ENABLED", default.enabled),
        policy_address=address,
        policy_token=token,
        policy_token_file=token_file,
        policy_ca=text("POLICY_CA"),
        metrics_port=integer("METRICS_PORT", 0, 65535),
        metrics_host=text("METRICS_HOST") or default.metrics_host,
        strict=switch("STRICT", default.strict),
        lockstep=switch("LOCKSTEP", default.lockstep),
        lockstep_timeout_ms=number("LOCKSTEP_TIMEOUT_MS", default.lockstep_timeout_ms, 1, 60_000),
        engine_id=engine_id,
        sink_tokens=number("SINK_TOKENS", default.sink_tokens, 0, 4096),
        recent_tokens=number("RECENT_TOKENS", default.recent_tokens, 0, 4096),
        query_ring=number("QUERY_RING", default.query_ring, 1, 256),
        end_of_thinking=texts("END_OF_THINKING", default.end_of_thinking),
        probe_suffix=text("PROBE_SUFFIX") or default.probe_suffix,
        segment_markers=texts("SEGMENT_MARKERS", default.segment_markers),
    )
