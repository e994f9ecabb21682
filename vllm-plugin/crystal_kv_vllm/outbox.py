"""Messages on their way to the policy service."""

import threading
from collections import deque
from collections.abc import Iterator

from .gen import policy_pb2 as pb


class Outbox:
    """A bounded queue that never makes its writer wait.

    While the service is slower than the engine, the oldest step is dropped for a new one and counted; all other
    messages are kept in order. When even those are too many, the box closes: the stream ends, and the next one begins
    with a snapshot.
    """

    def __init__(self, max_steps: int = 64, max_messages: int = 4096) -> None:
        self._max_steps = max_steps
        self._max_messages = max_messages
        self._messages: deque[pb.AttachRequest] = deque()
        self._steps = 0
        self._changed = threading.Condition()
        self._closed = False
        self.dropped_steps = 0

    def put(self, message: pb.AttachRequest) -> None:
        """Queues a message; does nothing when the box is closed."""
        with self._changed:
            if self._closed:
                return
            if message.HasField("step"):
                if self._steps >= self._max_steps:
                    self._drop_oldest_step()
                self._steps += 1
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
                    self._steps -= 1
            yield message

    def _close(self) -> None:
        self._closed = True
        self._messages.clear()
        self._changed.notify_all()

    def _drop_oldest_step(self) -> None:
        for index, message in enumerate(self._messages):
            if message.HasField("step"):
                del self._messages[index]
                self._steps -= 1
                self.dropped_steps += 1
                return
