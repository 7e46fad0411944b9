"""How compiled code gets at tensors: by address.

An array for each costs 3 us on the way in, a third of a layer's work.
"""

import threading
from collections.abc import Callable
from typing import Any

import numba
import torch
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from physics.jit import aligned, inline

_own = threading.local()
_ENDLESS = 1 << 40  # elements: an address knows no length


@intrinsic
def _pointer(typing, address):
    def code(context: object, builder: object, signature: object, values: tuple) -> object:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), code


@inline
def view(address, kind):
    """Return the memory from an address on as a flat array of numbers of a kind, without an end."""
    return numba.carray(_pointer(address), (_ENDLESS,), kind)


def scratch(name: str, size: int) -> int:
    """Return the address of this thread's work memory of a name: size float32 numbers from a cache line on.

    What it holds is not defined.
    """
    found = getattr(_own, name, None)
    if found is None or len(found[0]) < size:
        memory = aligned(size)
        found = memory, memory.ctypes.data
        setattr(_own, name, found)
    return found[1]


def run(layer: Any) -> Callable:
    """Return what runs a layer: with autograd only where that is on, which costs 15 us a layer.

    layer: an autograd function of this package.
    """
    return layer.apply if torch.is_grad_enabled() else Passes(layer)


class Passes:
    """A layer's passes without autograd: forwards, and back from the gradients of what came of it.

    What autograd's context would keep for the way back is kept here.

    layer: an autograd function of this package; of_data: whether no gradient of its input is wanted.
    """

    def __init__(self, layer: Any, of_data: bool = False) -> None:
        self.layer = layer
        self.needs_input_grad = (not of_data,)

    def __call__(self, *inputs: Any) -> Any:
        """Return what the layer makes of its inputs."""
        return self.layer.forward(self, *inputs)

    def back(self, *gradients: Tensor | None) -> tuple:
        """Return the gradients of its inputs, None of those that have none."""
        return self.layer.backward(self, *gradients)

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for the way back."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Do nothing: nobody asks for gradients of these."""
