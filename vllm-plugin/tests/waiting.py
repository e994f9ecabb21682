"""How tests wait: as long as something moves. On a busy machine everything takes longer, and still moves."""

import time
from collections.abc import Callable

#: Longest wait in which nothing moves, in seconds.
PATIENCE_S = 120.0
_POLL_S = 0.1


def until(condition: Callable[[], bool], what: str, progress: Callable[[], object] = lambda: None) -> None:
    """Polls until a condition holds; a refused connection counts as not yet.

    Raises TimeoutError when the condition does not hold and `progress` was the same for PATIENCE_S.
    """
    seen, since = progress(), time.monotonic()
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        now = progress()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE_S:
            raise TimeoutError(f"{what}: not yet, and nothing moved for {PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)
