"""Intel's matrix unit, AMX: tiles of 16 rows of 64 bytes, whose products of bfloat16 pairs take 16 cycles.

There are eight, named by numbers. A tile of weights holds 16 rows of 16 pairs, one of samples 16 pairs of rows of 16
samples, a total 16 rows of 16 samples' float32. HAS_TILES says whether processor and system have them, and the process
was allowed to use them: Linux saves 8 kB more of a thread then (Documentation/arch/x86/xstate.rst).
"""

import struct
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fused.registers import WIDTH, transposed
from physics.jit import HAS_TILES

__all__ = [
    "HAS_TILES", "begin_tiles", "end_tiles", "tile_load", "tile_load_transposed", "tile_multiply", "tile_store",
    "tile_zero",
]  # fmt: skip

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)
# Palette 1, eight tiles of 64 bytes a row and 16 rows
_SHAPES = struct.pack("<BB14x8H16x8B8x", 1, 0, *[64] * 8, *[16] * 8)


def _call(builder: Any, name: str, *arguments: Any) -> None:
    if not HAS_TILES:  # code that is never reached; elsewhere LLVM has no instruction for it
        return
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _number(kind: Any) -> ir.Constant:
    """Return a tile's number as the compiler wants it."""
    return ir.Constant(_BYTE, kind.literal_value)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _BYTE.as_pointer())


def _moved(instruction: str, tile: Any, array: Any) -> tuple:
    """Return signature and code of what moves a tile between its register and an array."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        place = _place(context, builder, signature.args[1], values[1], values[2])
        _call(builder, instruction, _number(tile), place, values[3])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), code


@intrinsic
def begin_tiles(typing):
    """Say what shape tiles have; nothing between this and end_tiles() may raise."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        shapes = cgutils.global_constant(
            builder, "tile_shapes", ir.Constant(ir.ArrayType(_BYTE, 64), bytearray(_SHAPES))
        )
        _call(builder, "ldtilecfg", builder.bitcast(shapes, _BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def end_tiles(typing):
    """Let tiles go: a thread that holds some is slower to switch."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic(prefer_literal=True)
def tile_zero(typing, tile):
    """Set a tile to nothing."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        _call(builder, "tilezero", _number(tile))
        return context.get_dummy_value()

    return types.void(tile), code


@intrinsic(prefer_literal=True)
def tile_load(typing, tile, array, index, stride):
    """Read a tile from array[index] on, rows so many bytes apart."""
    return _moved("tileloadd64", tile, array)


@intrinsic(prefer_literal=True)
def tile_load_transposed(typing, tile, array, index, stride):
    """Read a tile as tile_load() does, its 32-bit numbers' rows for columns."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = ir.VectorType(ir.FloatType(), WIDTH)
        place = _place(context, builder, signature.args[1], values[1], values[2])
        rows = []
        for i in range(WIDTH):
            at = builder.gep(place, [builder.mul(values[3], ir.Constant(values[3].type, i))])
            rows.append(builder.load(builder.bitcast(at, kind.as_pointer()), align=2))
        space = cgutils.alloca_once(builder, kind, size=ir.Constant(ir.IntType(32), WIDTH))
        for i, row in enumerate(transposed(builder, rows)):
            builder.store(row, builder.gep(space, [ir.Constant(ir.IntType(32), i)]), align=4)
        _call(builder, "tileloadd64", _number(tile), builder.bitcast(space, _BYTE.as_pointer()), _WORD(4 * WIDTH))
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), code


@intrinsic(prefer_literal=True)
def tile_store(typing, tile, array, index, stride):
    """Write a tile to array[index] on, rows so many bytes apart."""
    return _moved("tilestored64", tile, array)


@intrinsic(prefer_literal=True)
def tile_multiply(typing, total, a, b):
    """Add the product of tiles a and b, of bfloat16 pairs, to a tile of float32."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        _call(builder, "tdpbf16ps", _number(total), _number(a), _number(b))
        return context.get_dummy_value()

    return types.void(total, a, b), code
