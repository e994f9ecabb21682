"""What a CUDA graph does, on a CPU: the operations of a run are recorded, and carried out again on the same memory.

The recorded code does not run again, as with a graph: what it read then from some memory is read from there.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what runs inside of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self._operations:
            inputs = {it.untyped_storage().data_ptr() for it in tree_leaves((args, kwargs)) if torch.is_tensor(it)}
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                # a view, or what was changed in place, is where it was
                if torch.is_tensor(old) and new.untyped_storage().data_ptr() not in inputs:
                    old.copy_(new)
