"""Runs a command, and ends it with everything that it started once the standard input is closed.

    guard.py DESCRIPTOR COMMAND [ARGUMENT ...]

Whoever starts this holds the other end of the standard input: it closes when that process ends, also when it is killed.
The command's process id goes to the descriptor. No process stays, whatever signals it ignores and whatever session it
is in; those that the command leaves behind when it ends are ended too.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

from process_tree import descendants

PR_SET_CHILD_SUBREAPER = 36


def end_all() -> None:
    """Returns when this process has no descendants any more."""
    while True:
        for pid in descendants(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main(report: int, command: list[str]) -> int:
    # processes whose parent has ended become children of this one, so that none gets out of sight
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    # whoever asks the guard itself to end means all of it
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        os.write(report, f"{child.pid}\n".encode())
        os.close(report)
        events = select.poll()
        events.register(sys.stdin.fileno(), select.POLLIN)
        events.register(os.pidfd_open(child.pid), select.POLLIN)
        events.poll()
        code = child.poll()
        if code is None:
            return 128 + signal.SIGKILL
        return code if code >= 0 else 128 - code
    finally:
        end_all()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
