"""Memory that compiled code works in."""

import threading

import numpy as np
import torch
from torch import Tensor

from physics.jit import aligned

_own = threading.local()


def bits(x: Tensor) -> np.ndarray:
    """Return a tensor's memory as a flat array: float32 as it is, bfloat16 as its 16 bits."""
    x = x.detach()
    return (x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()).reshape(-1)


def weights(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Return weights as products take them, flat, in dtype: float32, or two bfloat16 numbers to an int32."""
    x = x.detach().to(dtype).contiguous()
    return (x.view(torch.int32) if dtype == torch.bfloat16 else x).numpy().reshape(-1)


def scratch(name: str, size: int) -> np.ndarray:
    """Return this thread's work memory of a name, size float32 numbers from a cache line on; what it holds is not defined."""
    found = getattr(_own, name, None)
    if found is None or len(found) < size:
        found = aligned(size)
        setattr(_own, name, found)
    return found[:size]
