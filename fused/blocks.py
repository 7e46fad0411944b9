"""Blocks of matrices in registers: many products of few loads, and the pairs of bfloat16 numbers that they take.

Arrays and indices are as in vectors.py. An array of pairs is of float32 or int32: each element holds two bfloat16
numbers, whose products a processor with HAS_PAIRS adds in one instruction.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fused.registers import (
    FLAGS,
    FLOAT,
    FLOATS,
    HAS_PAIRS,
    INT,
    INTS,
    PAIRS,
    SHORT,
    WIDTH,
    Vector,
    call,
    join,
    place_of,
    read,
    rounded,
    split,
    spread,
    transposed,
    whole,
    write,
)


@intrinsic
def pairs_of(typing, array):
    """Return how many numbers lie in 32 bits: 1 of an array of float32, 2 of uint16."""
    count = 1 if array.dtype == types.float32 else 2
    return types.intp(array), lambda context, builder, signature, values: ir.Constant(ir.IntType(64), count)


@intrinsic
def pairs_in(typing, weights):
    """Return how many numbers lie in an element of weights: 1 of an array of float32, 2 of int32."""
    count = 1 if weights.dtype == types.float32 else 2
    return types.intp(weights), lambda context, builder, signature, values: ir.Constant(ir.IntType(64), count)


@intrinsic
def load_pairs(typing, array, first, second):
    """Return WIDTH numbers from array[first] on; of uint16, beside each the one from array[second] on, as 32 bits."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[0]
        a = read(context, builder, kind, values[0], values[1], 0)
        if kind.dtype == types.uint16:
            b = read(context, builder, kind, values[0], values[2], 0)
            both = builder.or_(builder.zext(a, INTS), builder.shl(builder.zext(b, INTS), whole(16)))
            a = builder.bitcast(both, FLOATS)
        return join(builder, [a])

    return Vector(1)(array, types.intp, types.intp), code


@intrinsic
def store_pairs(typing, array, index, a, b):
    """Write pairs of bfloat16 numbers, one of each of two Vector(1), to an array of float32, as load_pairs()."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        x, y = (builder.extract_value(value, 0) for value in values[2:])
        if HAS_PAIRS:
            both = builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT, 2 * WIDTH), list(range(2 * WIDTH))))
            narrow = builder.bitcast(builder.fptrunc(both, PAIRS), ir.VectorType(SHORT, 2 * WIDTH))
            order = [i + half * WIDTH for i in range(WIDTH) for half in (0, 1)]
            pairs = builder.shuffle_vector(narrow, narrow, ir.Constant(ir.VectorType(INT, 2 * WIDTH), order))
        else:
            upper = builder.and_(rounded(builder, y), whole(0xFFFF0000))
            pairs = builder.or_(builder.lshr(rounded(builder, x), whole(16)), upper)
        place = place_of(context, builder, signature.args[0], values[0], values[1], 0)
        builder.store(builder.bitcast(pairs, FLOATS), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b), code


def _multiply(builder: Any, kind: Any, total: Any, a: Any, b: Any) -> Any:
    """Return total + a b of registers as in an array of a kind: of pairs, total + a_even b_even + a_odd b_odd."""
    if kind.dtype == types.float32:
        return call(builder, "llvm.fma", a, b, total)
    if HAS_PAIRS:
        kind = ir.FunctionType(FLOATS, [FLOATS, PAIRS, PAIRS])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
        return builder.call(function, [total, builder.bitcast(a, PAIRS), builder.bitcast(b, PAIRS)])
    for place in (lambda x: builder.shl(x, whole(16)), lambda x: builder.and_(x, whole(0xFFFF0000))):
        x, y = (builder.bitcast(place(builder.bitcast(z, INTS)), FLOATS) for z in (a, b))
        total = call(builder, "llvm.fma", x, y, total)
    return total


@intrinsic
def multiply_up(typing, totals, weights, index, stride, x):
    """Return totals + weights x: totals Vector(R C), row by row; x Vector(C); weights[index + r stride] in every lane.

    weights: float32, or int32 for pairs of bfloat16 numbers, as x then holds them, too.
    """

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[1]
        data = context.make_array(kind)(context, builder, values[1]).data
        found = split(builder, signature.args[0], values[0], totals.count)
        xs = split(builder, signature.args[4], values[4], x.count)
        for r in range(totals.count // x.count):
            step = builder.mul(values[3], ir.Constant(values[3].type, r))
            w = builder.load(builder.gep(data, [builder.add(values[2], step)]))
            w = spread(builder, w if kind.dtype == types.float32 else builder.bitcast(w, FLOAT))
            for c, y in enumerate(xs):
                i = r * x.count + c
                found[i] = _multiply(builder, kind, found[i], w, y)
        return join(builder, found)

    return totals(totals, weights, types.intp, types.intp, x), code


@intrinsic(prefer_literal=True)
def load_rows(typing, array, index, stride, count):
    """Return the Vector(count) of what starts at array[index + i stride], as it is: of uint16, pairs of neighbours."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        registers = []
        for i in range(count.literal_value):
            place = builder.gep(data, [builder.add(values[1], builder.mul(values[2], ir.Constant(values[2].type, i)))])
            registers.append(builder.load(builder.bitcast(place, FLOATS.as_pointer()), align=2))
        return join(builder, registers)

    return Vector(count.literal_value)(array, types.intp, types.intp, count), code


@intrinsic
def multiply_all(typing, array, totals, a, b):
    """Return totals + a_i b_j: Vector(R C), row by row, of Vector(R) and Vector(C), numbers or pairs as in array."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        found = split(builder, signature.args[1], values[1], totals.count)
        xs, ys = (split(builder, signature.args[i], values[i], signature.args[i].count) for i in (2, 3))
        for r, x in enumerate(xs):
            for c, y in enumerate(ys):
                i = r * len(ys) + c
                found[i] = _multiply(builder, array, found[i], x, y)
        return join(builder, found)

    return totals(array, totals, a, b), code


@intrinsic(prefer_literal=True)
def store_block(typing, array, index, stride, totals, count):
    """Write a Vector(R count) to R rows of array: the registers of row r from index + r stride on."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        for i, x in enumerate(split(builder, signature.args[3], values[3], totals.count)):
            r, c = divmod(i, count.literal_value)
            step = builder.mul(values[2], ir.Constant(values[2].type, r))
            write(context, builder, signature.args[0], values[0], builder.add(values[1], step), c, x)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, totals, count), code


@intrinsic(prefer_literal=True)
def store_sums(typing, array, index, stride, totals, count):
    """Write the sums over the lanes of totals, Vector(R count), to array[index + r stride + c]; WIDTH registers."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        registers = split(builder, signature.args[3], values[3], totals.count)
        # lanes of two registers merge into one, half of each: after four rounds one register holds a sum per lane
        size = WIDTH // 2
        while len(registers) > 1:
            merged = []
            half = len(registers) // 2
            for x, y in zip(registers[:half], registers[half:], strict=True):
                block = [i for i in range(WIDTH) if i % (2 * size) < size]
                low = sorted(block)
                order_a = [i if i in low else WIDTH + i - size for i in range(WIDTH)]
                order_b = [i + size if i in low else WIDTH + i for i in range(WIDTH)]
                a = builder.shuffle_vector(x, y, ir.Constant(INTS, order_a))
                b = builder.shuffle_vector(x, y, ir.Constant(INTS, order_b))
                merged.append(builder.fadd(a, b, flags=FLAGS))
            registers = merged
            size = size // 2
        # the first merge chose by the highest bit of the lane between the halves of the list, and so on down
        rows = totals.count // count.literal_value
        (result,) = registers
        for r in range(rows):
            order = [r * count.literal_value + c for c in range(count.literal_value)]
            part = builder.shuffle_vector(result, result, ir.Constant(ir.VectorType(INT, count.literal_value), order))
            step = builder.mul(values[2], ir.Constant(values[2].type, r))
            place = builder.bitcast(builder.gep(data, [builder.add(values[1], step)]), part.type.as_pointer())
            builder.store(part, place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, totals, count), code


@intrinsic
def store_scattered(typing, array, places, first, offset, vector):
    """Write a Vector(WIDTH) transposed: of sample i, one number after another, to array[places[first + i] + offset].

    places: int64.
    """

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        rows = transposed(builder, split(builder, signature.args[4], values[4], WIDTH))
        data = context.make_array(signature.args[1])(context, builder, values[1]).data
        for i, row in enumerate(rows):
            at = builder.load(builder.gep(data, [builder.add(values[2], ir.Constant(values[2].type, i))]))
            place = place_of(context, builder, signature.args[0], values[0], builder.add(at, values[3]), 0)
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(array, places, types.intp, types.intp, vector), code


@intrinsic
def load_square(typing, array, index, stride):
    """Return, transposed, WIDTH numbers of WIDTH rows that begin stride apart at array[index]: Vector(WIDTH), float32.

    Its number k of sample i is array[index + i stride + k].
    """

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        array, index, stride = values
        kind = signature.args[0]
        begins = [builder.add(index, builder.mul(stride, ir.Constant(stride.type, i))) for i in range(WIDTH)]
        return join(builder, transposed(builder, [read(context, builder, kind, array, x, 0) for x in begins]))

    return Vector(WIDTH)(array, types.intp, types.intp), code
