"""Processes and all that they started, from /proc."""

import os
from collections import defaultdict
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """What proc(5) calls the third and the later fields. Raises OSError when the process is gone."""
    # the second one is the command in parentheses, which may hold anything
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(root: int) -> list[int]:
    """Children, their children, and so on; those that have ended and were not waited for are left out."""
    children = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, parent, *_ = _stat(int(entry))
            except OSError:
                continue
            if state != "Z":
                children[int(parent)].append(int(entry))
    found, waiting = [], [root]
    while waiting:
        waiting += (own := children[waiting.pop()])
        found += own
    return found


def cpu_seconds(root: int) -> float:
    """What a process, its descendants and their children that have ended computed so far, in user and system mode."""
    ticks = 0
    for pid in [root, *descendants(root)]:
        try:
            ticks += sum(map(int, _stat(pid)[11:15]))
        except OSError:
            continue
    return ticks / _TICKS_PER_SECOND
