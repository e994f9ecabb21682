"""Messages on their way to the policy service."""

import threading
from collections import deque
from collections.abc import Iterator

from .gen import policy_pb2 as pb


class Outbox:
    """A bounded queue that never makes its writer wait.

    When the service is slower than the engine, the oldest waiting step makes room for a new one, and is counted. A step
    in several messages is one step: what still waits of it is dropped together. All other messages are kept, in order.
    When too many wait, the box closes: the stream ends, and the next one begins with a snapshot.
    """

    def __init__(self, max_steps: int = 64, max_messages: int = 4096) -> None:
        self._max_steps = max_steps
        self._max_messages = max_messages
        self._messages: deque[pb.AttachRequest] = deque()
        #: Messages that wait, by step number; the oldest step comes first.
        self._steps: dict[int, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.dropped_steps = 0

    def put(self, message: pb.AttachRequest) -> None:
        """Queues a message; does nothing when the box is closed."""
        with self._changed:
            if self._closed:
                return
            if message.HasField("step"):
                step = message.step.step
                if step not in self._steps and len(self._steps) >= self._max_steps:
                    self._drop_oldest_step()
                self._steps[step] = self._steps.get(step, 0) + 1
            elif len(self._messages) >= self._max_messages:
                self._close()
                return
            self._messages.append(message)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._close()

    @property
    def closed(self) -> bool:
        return self._closed

    def __iter__(self) -> Iterator[pb.AttachRequest]:
        """Takes messages as they come, until the box is closed."""
        while True:
            with self._changed:
                while not self._messages and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                message = self._messages.popleft()
                if message.HasField("step"):
                    self._taken(message.step.step)
            yield message

    def _close(self) -> None:
        self._closed = True
        self._messages.clear()
        self._changed.notify_all()

    def _drop_oldest_step(self) -> None:
        oldest = next(iter(self._steps))
        del self._steps[oldest]
        self._messages = deque(
            message for message in self._messages if not (message.HasField("step") and message.step.step == oldest)
        )
        self.dropped_steps += 1

    def _taken(self, step: int) -> None:
        self._steps[step] -= 1
        if self._steps[step] == 0:
            del self._steps[step]
