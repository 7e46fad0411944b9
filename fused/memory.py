"""How compiled code gets at tensors: by address.

An array for each costs 3 us on the way in, a third of a layer's work.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

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
    """Return the address of this thread's work memory of a name, or its owner's: size float32 from a cache line on.

    What it holds is not defined.
    """
    owned = _own.__dict__.setdefault("scratch", {})
    found = owned.get(name)
    if found is None or len(found[0]) < size:
        memory = aligned(size)
        found = owned[name] = memory, memory.ctypes.data, found  # what an owner was told of before stays
    return found[1]


@contextlib.contextmanager
def owner(of: dict[str, Any]) -> Iterator[None]:
    """Let scratch() return memory that somebody else than this thread owns."""
    before = _own.__dict__.get("scratch", {})
    _own.scratch = of
    try:
        yield
    finally:
        _own.scratch = before
