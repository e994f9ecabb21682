"""Folders that appear at once or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Between the name of a folder and the number of the process that is writing it.
PARTIAL = ".partial-"


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill an empty folder beside it, and renames that. One that is there, or comes meanwhile, stays."""
    remove_left_over(folder)
    partial = folder.with_name(f"{folder.name}{PARTIAL}{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        write(partial)
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_left_over(folder: Path) -> None:
    """Removes what runs that were ended by force have left of the folder."""
    for partial in folder.parent.glob(f"{folder.name}{PARTIAL}*"):
        if not is_running(int(partial.name.rpartition("-")[2])):
            shutil.rmtree(partial, ignore_errors=True)


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
