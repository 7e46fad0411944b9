"""How compiled code gets at tensors: by address.

An array for each costs 3 us on the way in, a third of a layer's work.
"""

import threading

import numba
from numba import types
from numba.extending import intrinsic

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
