"""What the environment may say, and where it is documented."""

import dataclasses
from pathlib import Path

import pytest

from crystal_kv_vllm.settings import Settings, SettingsError, read_settings, settings_table, variables


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_every_setting_is_read_from_its_variable() -> None:
    values: dict[str, tuple[str, object]] = {
        "CRYSTALKV_ENABLED": ("0", False),
        "CRYSTALKV_POLICY_ADDRESS": ("", ""),
        "CRYSTALKV_POLICY_TOKEN": ("secret", "secret"),
        "CRYSTALKV_POLICY_CA": ("ca.pem", "ca.pem"),
        "CRYSTALKV_METRICS_PORT": ("9092", 9092),
        "CRYSTALKV_METRICS_HOST": ("0.0.0.0", "0.0.0.0"),
        "CRYSTALKV_STRICT": ("1", True),
        "CRYSTALKV_LOCKSTEP": ("1", True),
        "CRYSTALKV_LOCKSTEP_TIMEOUT_MS": ("5", 5),
        "CRYSTALKV_ENGINE_ID": ("other", "other"),
        "CRYSTALKV_SINK_TOKENS": ("0", 0),
        "CRYSTALKV_RECENT_TOKENS": ("0", 0),
        "CRYSTALKV_QUERY_RING": ("1", 1),
        "CRYSTALKV_END_OF_THINKING": ('["</think>", "</thought>"]', ("</think>", "</thought>")),
        "CRYSTALKV_PROBE_SUFFIX": ("\n</think>\n\n", "\n</think>\n\n"),
        "CRYSTALKV_SEGMENT_MARKERS": ("[]", ()),
    }
    assert set(values) | {"CRYSTALKV_POLICY_TOKEN_FILE"} == {variable.name for variable in variables()}
    for name, (text, wanted) in values.items():
        field = name.removeprefix("CRYSTALKV_").lower()
        assert getattr(Settings(), field) != wanted
        everything = dataclasses.asdict(Settings()) | {field: wanted}
        assert dataclasses.asdict(read_settings({name: text})) == everything


def test_a_token_comes_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from a file\n")
    named = {"CRYSTALKV_POLICY_TOKEN_FILE": str(file)}
    assert read_settings(named).policy_token == "from a file"
    with pytest.raises(SettingsError, match="both set"):
        read_settings({**named, "CRYSTALKV_POLICY_TOKEN": "secret"})
    with pytest.raises(SettingsError, match="CRYSTALKV_POLICY_TOKEN_FILE is 'nowhere': it cannot be read"):
        read_settings({"CRYSTALKV_POLICY_TOKEN_FILE": "nowhere"})


def test_a_default_as_it_is_documented_is_the_default() -> None:
    assert read_settings({variable.name: variable.default for variable in variables()}) == Settings()


def test_the_readme_has_every_variable_as_the_settings_say() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    assert settings_table() in readme.read_text(), f"it has to be:\n{settings_table()}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CRYSTALKV_RECENT_TOKENS", "5000", "'5000': an integer from 0 to 4096"),
        ("CRYSTALKV_METRICS_PORT", "x", "'x': an integer from 0 to 65535"),
        ("CRYSTALKV_STRICT", "yes", "'yes': 0 or 1"),
        ("CRYSTALKV_POLICY_ADDRESS", "nowhere", "'nowhere': host:port"),
        ("CRYSTALKV_SEGMENT_MARKERS", "a", "'a': a JSON list of non-empty strings"),
    ],
)
def test_an_error_names_variable_value_and_bounds(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=name) as error:
        read_settings({name: value})
    assert words in str(error.value)
