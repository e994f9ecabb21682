"""Counts what a GPU would be given to do, on a machine without one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that start nothing on the device.
VIEWS = frozenset(
    (
        *("alias", "as_strided", "chunk", "detach", "expand", "lift_fresh", "permute", "select", "slice", "split"),
        *("squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view"),
        *("empty", "new_empty", "empty_like", "device"),
    )
)


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Tensors on it have shapes and no numbers. What would have to wait for a number raises."""
    with FakeTensorMode():
        yield torch.device("cuda", 0)


class DeviceOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        #: Launches, at least; a kernel of the plugin's own is one.
        self.count = 0
        #: Of the tensors that were made.
        self.largest_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.name().split("::")[1].split(".")[0] not in VIEWS:
            self.count += 1
            if isinstance(result, torch.Tensor) and not any(result is it for it in args):
                self.largest_bytes = max(self.largest_bytes, result.numel() * result.element_size())
        return result
