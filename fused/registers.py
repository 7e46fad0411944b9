"""Vectors as LLVM has them: the type, and what turns vectors into registers, memory into registers, and back.

A function here writes code: its builder appends instructions, and values stand for what will be computed. What compiled
code calls is in vectors.py and blocks.py.
"""

from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

_TARGET = numba.config.CPU_FEATURES  # None: the processor's own
_FEATURES = llvmlite.binding.get_host_cpu_features().flatten() if _TARGET is None else _TARGET
WIDTH = 16 if "+avx512f" in _FEATURES else 8  # a register of AVX-512, of AVX2; with more the attention is no faster
# A processor with this multiplies pairs of bfloat16 numbers and adds both products in one instruction.
HAS_PAIRS = "+avx512bf16" in _FEATURES


class BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


FLOAT = ir.FloatType()
INT = ir.IntType(32)
SHORT = ir.IntType(16)
PAIRS = ir.VectorType(BFloat(), 2 * WIDTH)
FLOATS, INTS, SHORTS = (ir.VectorType(t, WIDTH) for t in (FLOAT, INT, SHORT))
FLAGS = ("contract", "nsz", "arcp", "afn")  # as in physics/jit.py


class Vector(types.Type):
    """Type of ``count`` numbers of each of WIDTH samples."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"Vector({count})")
        self.count = count


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.ArrayType(FLOATS, kind.count))


def count_of(kind: Any) -> int:
    """Return how many numbers of a sample a type holds."""
    return kind.count if isinstance(kind, Vector) else 1


def constant(x: float) -> ir.Constant:
    """Return a float32 number in every lane."""
    return ir.Constant(FLOATS, [float(np.float32(x))] * WIDTH)


def whole(x: int) -> ir.Constant:
    """Return a whole number of 32 bits in every lane."""
    return ir.Constant(INTS, [x] * WIDTH)


def spread(builder: Any, x: Any) -> Any:
    """Return a scalar in every lane."""
    first = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), x, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, ir.Constant(FLOATS, ir.Undefined), whole(0))


def split(builder: Any, kind: Any, value: Any, count: int) -> list:
    """Return a vector's or a scalar's registers, repeated to a count."""
    if not isinstance(kind, Vector):
        return [spread(builder, value)] * count
    found = [builder.extract_value(value, i) for i in range(kind.count)]
    return found * count if kind.count == 1 else found


def join(builder: Any, registers: list) -> Any:
    """Return the vector of these registers."""
    value = ir.Constant(ir.ArrayType(FLOATS, len(registers)), ir.Undefined)
    for i, register in enumerate(registers):
        value = builder.insert_value(value, register, i)
    return value


def call(builder: Any, name: str, *arguments: Any) -> Any:
    """Return what one of LLVM's own functions makes of registers of float32 numbers."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(FLOATS, [FLOATS] * len(arguments)), f"{name}.v{WIDTH}f32"
    )
    return builder.call(function, arguments)


def each(kinds: tuple, make: Any) -> tuple:
    """Return signature and code of what is done register by register."""
    count = max(count_of(kind) for kind in kinds)

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        found = [split(builder, kind, value, count) for kind, value in zip(signature.args, values, strict=True)]
        return join(builder, [make(builder, *registers) for registers in zip(*found, strict=True)])

    return Vector(count)(*(kind if isinstance(kind, Vector) else types.float32 for kind in kinds)), code


def place_of(context: Any, builder: Any, kind: Any, array: Any, index: Any, i: int) -> Any:
    """Return where register i of what starts at array[index] lies."""
    data = context.make_array(kind)(context, builder, array).data
    place = builder.gep(data, [builder.add(index, ir.Constant(index.type, i * WIDTH))])
    return builder.bitcast(place, (SHORTS if kind.dtype == types.uint16 else FLOATS).as_pointer())


def read(context: Any, builder: Any, kind: Any, array: Any, index: Any, i: int) -> Any:
    """Return register i of what starts at array[index], as it is there."""
    place = place_of(context, builder, kind, array, index, i)
    return builder.load(place, align=2 if kind.dtype == types.uint16 else 4)


def rounded(builder: Any, x: Any) -> Any:
    """Return the bits of float32 numbers whose upper halves are bfloat16 numbers, rounded to the nearest."""
    u = builder.bitcast(x, INTS)
    odd = builder.and_(builder.lshr(u, whole(16)), whole(1))  # ties to even
    return builder.add(u, builder.add(whole(0x7FFF), odd))


def write(context: Any, builder: Any, kind: Any, array: Any, index: Any, i: int, x: Any) -> None:
    """Store register i of what goes to array[index] and on."""
    if kind.dtype == types.uint16 and HAS_PAIRS:
        x = builder.bitcast(builder.fptrunc(x, ir.VectorType(BFloat(), WIDTH)), SHORTS)
    elif kind.dtype == types.uint16:
        x = builder.trunc(builder.lshr(rounded(builder, x), whole(16)), SHORTS)
    builder.store(x, place_of(context, builder, kind, array, index, i), align=2 if kind.dtype == types.uint16 else 4)


def transposed(builder: Any, rows: list) -> list:
    """Return WIDTH registers whose numbers are those of the others, rows for columns."""
    rows = list(rows)
    step = 1
    while step < WIDTH:  # swap the off-diagonal blocks of ever larger squares
        stays = [i if not i & step else WIDTH + i - step for i in range(WIDTH)]
        comes = [i + step if not i & step else WIDTH + i for i in range(WIDTH)]
        for i in range(WIDTH):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i] = builder.shuffle_vector(a, b, ir.Constant(INTS, stays))
                rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(INTS, comes))
        step *= 2
    return rows
