"""A backend is one module and one line of the registry; what is missing of either is named here."""

import ast
from pathlib import Path

from crystal_kv_vllm.backends import BACKENDS

PACKAGE = Path(__file__).parent.parent / "crystal_kv_vllm"
README = (PACKAGE.parent / "README.md").read_text()


def backend_classes() -> set[str]:
    """The qualified names of all classes that replace one of vLLM's backends, read without importing GPU libraries."""
    found = set()
    for path in sorted((PACKAGE / "backends").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "BackendMixin" in {ast.unparse(base) for base in node.bases}:
                found.add(f"crystal_kv_vllm.backends.{path.stem}.{node.name}")
    return found


def test_the_registry_holds_every_backend_and_nothing_else() -> None:
    assert backend_classes() == set(BACKENDS.values())


def test_the_readme_says_what_ran_of_every_backend() -> None:
    for name in BACKENDS:
        assert f"`{name}`" in README, name


def test_every_name_is_one_of_vllms() -> None:
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    for name in BACKENDS:
        assert name in AttentionBackendEnum.__members__
