"""Numbers for the device, without a wait for it."""

from collections.abc import Sequence

import torch


def upload(numbers: Sequence[object], device: torch.device, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """A tensor of (nested) lists of numbers.

    From memory that may be swapped, a copy to a GPU waits until all that was queued before it is done.
    """
    if device.type == "cpu" or not torch.cuda.is_available():
        return torch.tensor(numbers, dtype=dtype, device=device)
    return torch.tensor(numbers, dtype=dtype, pin_memory=True).to(device, non_blocking=True)
