"""What the environment says, read once for each process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(ValueError):
    """A variable holds something else than it may; the message names variable, value and bounds."""


@dataclass(frozen=True)
class Settings:
    """The plugin's settings. All have the prefix CRYSTALKV_ in the environment."""

    #: ENABLED: 0 leaves vLLM as it is.
    enabled: bool = True
    #: POLICY_ADDRESS: host:port of the policy service; empty: none.
    policy_address: str = "localhost:50051"
    #: POLICY_TOKEN: shared token of the policy service.
    policy_token: str | None = None
    #: POLICY_CA: PEM file of the authority that signed the service's certificate; turns TLS on.
    policy_ca: str | None = None
    #: METRICS_PORT: port of the plugin's own /metrics; data-parallel rank n takes the n-th after it.
    metrics_port: int | None = None
    #: METRICS_HOST: address of the plugin's own /metrics.
    metrics_host: str = "127.0.0.1"
    #: STRICT: 1 ends vLLM where the plugin would leave it as it is.
    strict: bool = False
    #: LOCKSTEP: 1 waits for the plan of a step before the next one: exact, but slow.
    lockstep: bool = False
    #: LOCKSTEP_TIMEOUT_MS: longest such wait.
    lockstep_timeout_ms: int = 1000
    #: ENGINE_ID: name of this engine at the policy service; data-parallel ranks get `-dp1` and so on.
    engine_id: str = "vllm"
    #: SINK_TOKENS: first tokens of a request, never evicted.
    sink_tokens: int = 4
    #: RECENT_TOKENS: newest tokens of a request, never evicted.
    recent_tokens: int = 64
    #: END_OF_THINKING: JSON list of texts that end the thinking phase; a reasoning parser of vLLM comes first.
    end_of_thinking: tuple[str, ...] = ("</think>",)
    #: SEGMENT_MARKERS: JSON list of texts; those that are one token begin a new reasoning step.
    segment_markers: tuple[str, ...] = ("\n\n", ".\n\n", "\n", ";")
    #: RELEASE_THINKING: 1 gives a request's thinking blocks back first when it ends; prompts stay cached longer.
    release_thinking: bool = False


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
    engine_id = text("ENGINE_ID") or default.engine_id
    if len(engine_id) > 128:
        raise refuse("ENGINE_ID", engine_id, "at most 128 characters")
    return Settings(
        enabled=switch("ENABLED", default.enabled),
        policy_address=address,
        policy_token=text("POLICY_TOKEN"),
        policy_ca=text("POLICY_CA"),
        metrics_port=integer("METRICS_PORT", 0, 65535),
        metrics_host=text("METRICS_HOST") or default.metrics_host,
        strict=switch("STRICT", default.strict),
        lockstep=switch("LOCKSTEP", default.lockstep),
        lockstep_timeout_ms=number("LOCKSTEP_TIMEOUT_MS", default.lockstep_timeout_ms, 1, 60_000),
        engine_id=engine_id,
        sink_tokens=number("SINK_TOKENS", default.sink_tokens, 0, 4096),
        recent_tokens=number("RECENT_TOKENS", default.recent_tokens, 0, 4096),
        end_of_thinking=texts("END_OF_THINKING", default.end_of_thinking),
        segment_markers=texts("SEGMENT_MARKERS", default.segment_markers),
        release_thinking=switch("RELEASE_THINKING", default.release_thinking),
    )
