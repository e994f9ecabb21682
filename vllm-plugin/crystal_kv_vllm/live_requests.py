"""The requests that are alive: those of clients, and the probes that were forked from them."""

from vllm.v1.request import Request

from .tracked_request import TrackedRequest


class LiveRequests:
    def __init__(self) -> None:
        self._by_id: dict[str, TrackedRequest] = {}
        self._by_handle: dict[int, TrackedRequest] = {}
        self._probes: dict[int, TrackedRequest] = {}
        self._next_handle = 1

    @property
    def next_handle(self) -> int:
        """The handle of the request that is added next; none is used twice."""
        return self._next_handle

    @property
    def requests(self) -> list[TrackedRequest]:
        """Requests of clients, in the order of their arrival."""
        return [tracked for tracked in self._by_id.values() if tracked.parent is None]

    @property
    def probes(self) -> list[TrackedRequest]:
        return list(self._probes.values()) if self._probes else []

    def by_id(self, request_id: str) -> TrackedRequest | None:
        return self._by_id.get(request_id)

    def by_handle(self, handle: int) -> TrackedRequest | None:
        return self._by_handle.get(handle)

    def add(self, request: Request, parent: TrackedRequest | None = None) -> TrackedRequest:
        tracked = TrackedRequest.of(self._next_handle, request)
        self._next_handle += 1
        if parent is not None:
            tracked.parent = parent
            parent.probe = tracked
            self._probes[tracked.handle] = tracked
        self._by_id[request.request_id] = tracked
        self._by_handle[tracked.handle] = tracked
        return tracked

    def remove(self, tracked: TrackedRequest) -> None:
        """It must be alive."""
        del self._by_id[tracked.request_id]
        del self._by_handle[tracked.handle]
        if tracked.parent is not None:
            tracked.parent.probe = None
            del self._probes[tracked.handle]
