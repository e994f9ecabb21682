"""Folders that appear at once or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from english.atomic import write_folder


class Fill:
    """Writes one file."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, folder: Path) -> None:
        """Called with the folder to fill."""
        (folder / "file").write_text(self.text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "cache" / "model", Fill("one"))
    assert names(tmp_path / "cache") == ["model"]
    assert (tmp_path / "cache" / "model" / "file").read_text() == "one"


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise ValueError("full disk")

    with pytest.raises(ValueError, match="full disk"):
        write_folder(tmp_path / "model", fail)
    assert names(tmp_path) == []


def test_a_run_that_is_killed_leaves_no_folder_and_the_next_run_clears_up(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from english.atomic import write_folder\n"
        "def write(folder): (folder / 'file').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_folder(Path(sys.argv[1]), write)"
    )
    root = Path(__file__).resolve().parent.parent
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], cwd=root, check=False)
    assert killed.returncode < 0
    assert [name.startswith("model.partial-") for name in names(tmp_path)] == [True]
    write_folder(tmp_path / "model", Fill("whole"))
    assert names(tmp_path) == ["model"]


def test_of_two_runs_at_once_the_first_to_finish_stays(tmp_path: Path) -> None:
    other = tmp_path / f"model.partial-{os.getppid()}"
    other.mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_text("first")
    write_folder(tmp_path / "model", Fill("second"))
    assert (tmp_path / "model" / "file").read_text() == "first"
    assert names(tmp_path) == sorted(["model", other.name]), "what a running process writes is left alone"
