"""Vectors for compiled code: a number of WIDTH samples at once, and several of these side by side.

The compiler turns a loop over samples into vector instructions only if the loop holds little. Where
it should hold much, such as the attention among all parts of a body, these types say what is meant:
a ``Vector(1)`` holds one number of each of WIDTH samples, a ``Vector(n)`` n such numbers, in
registers. They are made by ``load``, ``zeros`` and arithmetic, and leave by ``store``. Arithmetic
works element by element, between vectors of one count and with Vector(1) and float32 scalars.

Arrays are flat; an index counts elements. An array of uint16 holds bfloat16 numbers: widened by
load, rounded to the nearest by store.
"""

import operator
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

_TARGET = numba.config.CPU_FEATURES  # None: the processor's own
_FEATURES = llvmlite.binding.get_host_cpu_features().flatten() if _TARGET is None else _TARGET
WIDTH = 16 if "+avx512f" in _FEATURES else 8  # a register of AVX-512, of AVX2; with more the attention is no faster
# A processor with this multiplies pairs of bfloat16 numbers and adds both products in one instruction.
HAS_PAIRS = "+avx512bf16" in _FEATURES


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_SHORT = ir.IntType(16)
_PAIRS = ir.VectorType(_BFloat(), 2 * WIDTH)
_FLOATS, _INTS, _SHORTS = (ir.VectorType(t, WIDTH) for t in (_FLOAT, _INT, _SHORT))
_FLAGS = ("contract", "nsz", "arcp", "afn")  # as in physics/jit.py


class Vector(types.Type):
    """Type of ``count`` numbers of each of WIDTH samples."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"Vector({count})")
        self.count = count


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.ArrayType(_FLOATS, kind.count))


def _count(kind: Any) -> int:
    return kind.count if isinstance(kind, Vector) else 1


def _constant(x: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(x))] * WIDTH)


def _whole(x: int) -> ir.Constant:
    return ir.Constant(_INTS, [x] * WIDTH)


def _spread(builder: Any, x: Any) -> Any:
    """Return a scalar in every lane."""
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), x, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), _whole(0))


def _split(builder: Any, kind: Any, value: Any, count: int) -> list:
    """Return a vector's or a scalar's registers, repeated to a count."""
    if not isinstance(kind, Vector):
        return [_spread(builder, value)] * count
    found = [builder.extract_value(value, i) for i in range(kind.count)]
    return found * count if kind.count == 1 else found


def _join(builder: Any, registers: list) -> Any:
    value = ir.Constant(ir.ArrayType(_FLOATS, len(registers)), ir.Undefined)
    for i, register in enumerate(registers):
        value = builder.insert_value(value, register, i)
    return value


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments)), f"{name}.v{WIDTH}f32"
    )
    return builder.call(function, arguments)


def _each(kinds: tuple, make: Any) -> tuple:
    """Return signature and code of what is done register by register."""
    count = max(_count(kind) for kind in kinds)

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        split = [_split(builder, kind, value, count) for kind, value in zip(signature.args, values, strict=True)]
        return _join(builder, [make(builder, *registers) for registers in zip(*split, strict=True)])

    return Vector(count)(*(kind if isinstance(kind, Vector) else types.float32 for kind in kinds)), code


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, i: int) -> Any:
    """Return where register i of what starts at array[index] lies."""
    data = context.make_array(kind)(context, builder, array).data
    place = builder.gep(data, [builder.add(index, ir.Constant(index.type, i * WIDTH))])
    return builder.bitcast(place, (_SHORTS if kind.dtype == types.uint16 else _FLOATS).as_pointer())


def _read(context: Any, builder: Any, kind: Any, array: Any, index: Any, i: int) -> Any:
    """Return register i of what starts at array[index], as it is there."""
    place = _place(context, builder, kind, array, index, i)
    return builder.load(place, align=2 if kind.dtype == types.uint16 else 4)


@intrinsic(prefer_literal=True)
def load(typing, array, index, count):
    """Return the Vector(count) that starts at array[index]; count: a constant."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[0]
        registers = []
        for i in range(count.literal_value):
            x = _read(context, builder, kind, values[0], values[1], i)
            if kind.dtype == types.uint16:
                x = builder.bitcast(builder.shl(builder.zext(x, _INTS), _whole(16)), _FLOATS)
            registers.append(x)
        return _join(builder, registers)

    return Vector(count.literal_value)(array, types.intp, count), code


def _write(context: Any, builder: Any, kind: Any, array: Any, index: Any, i: int, x: Any) -> None:
    """Store register i of what goes to array[index] and on."""
    if kind.dtype == types.uint16 and HAS_PAIRS:
        x = builder.bitcast(builder.fptrunc(x, ir.VectorType(_BFloat(), WIDTH)), _SHORTS)
    elif kind.dtype == types.uint16:
        x = builder.trunc(builder.lshr(_rounded(builder, x), _whole(16)), _SHORTS)
    builder.store(x, _place(context, builder, kind, array, index, i), align=2 if kind.dtype == types.uint16 else 4)


@intrinsic
def store(typing, array, index, vector):
    """Write a vector to array[index] and on."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        for i, x in enumerate(_split(builder, signature.args[2], values[2], vector.count)):
            _write(context, builder, signature.args[0], values[0], values[1], i, x)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


def _rounded(builder: Any, x: Any) -> Any:
    """Return the bits of float32 numbers whose upper halves are bfloat16 numbers, rounded to the nearest."""
    u = builder.bitcast(x, _INTS)
    odd = builder.and_(builder.lshr(u, _whole(16)), _whole(1))  # ties to even
    return builder.add(u, builder.add(_whole(0x7FFF), odd))


@intrinsic
def store_pairs(typing, array, index, a, b):
    """Write pairs of bfloat16 numbers, one of each of two Vector(1), to an array of float32, as load_pairs()."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        x, y = (builder.extract_value(value, 0) for value in values[2:])
        if HAS_PAIRS:
            both = builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_INT, 2 * WIDTH), list(range(2 * WIDTH))))
            narrow = builder.bitcast(builder.fptrunc(both, _PAIRS), ir.VectorType(_SHORT, 2 * WIDTH))
            order = [i + half * WIDTH for i in range(WIDTH) for half in (0, 1)]
            pairs = builder.shuffle_vector(narrow, narrow, ir.Constant(ir.VectorType(_INT, 2 * WIDTH), order))
        else:
            upper = builder.and_(_rounded(builder, y), _whole(0xFFFF0000))
            pairs = builder.or_(builder.lshr(_rounded(builder, x), _whole(16)), upper)
        place = _place(context, builder, signature.args[0], values[0], values[1], 0)
        builder.store(builder.bitcast(pairs, _FLOATS), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b), code


@intrinsic
def put(typing, array, index, x):
    """Set array[index] to one float32 number, rounded where the array holds bfloat16."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[0]
        (array, index, number) = values
        if kind.dtype == types.uint16:
            u = builder.bitcast(number, _INT)
            odd = builder.and_(builder.lshr(u, ir.Constant(_INT, 16)), ir.Constant(_INT, 1))
            u = builder.add(builder.add(u, ir.Constant(_INT, 0x7FFF)), odd)
            number = builder.trunc(builder.lshr(u, ir.Constant(_INT, 16)), _SHORT)
        data = context.make_array(kind)(context, builder, array).data
        builder.store(number, builder.gep(data, [index]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), code


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
        a = _read(context, builder, kind, values[0], values[1], 0)
        if kind.dtype == types.uint16:
            b = _read(context, builder, kind, values[0], values[2], 0)
            both = builder.or_(builder.zext(a, _INTS), builder.shl(builder.zext(b, _INTS), _whole(16)))
            a = builder.bitcast(both, _FLOATS)
        return _join(builder, [a])

    return Vector(1)(array, types.intp, types.intp), code


def _multiply(builder: Any, kind: Any, total: Any, a: Any, b: Any) -> Any:
    """Return total + a b of registers as in an array of a kind: of pairs, total + a_even b_even + a_odd b_odd."""
    if kind.dtype == types.float32:
        return _call(builder, "llvm.fma", a, b, total)
    if HAS_PAIRS:
        kind = ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
        return builder.call(function, [total, builder.bitcast(a, _PAIRS), builder.bitcast(b, _PAIRS)])
    for place in (lambda x: builder.shl(x, _whole(16)), lambda x: builder.and_(x, _whole(0xFFFF0000))):
        x, y = (builder.bitcast(place(builder.bitcast(z, _INTS)), _FLOATS) for z in (a, b))
        total = _call(builder, "llvm.fma", x, y, total)
    return total


@intrinsic
def multiply_up(typing, totals, weights, index, stride, x):
    """Return totals + weights x: totals Vector(R C), row by row; x Vector(C); weights[index + r stride] in every lane.

    weights: float32, or int32 for pairs of bfloat16 numbers, as x then holds them, too.
    """

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[1]
        data = context.make_array(kind)(context, builder, values[1]).data
        found = _split(builder, signature.args[0], values[0], totals.count)
        xs = _split(builder, signature.args[4], values[4], x.count)
        for r in range(totals.count // x.count):
            step = builder.mul(values[3], ir.Constant(values[3].type, r))
            w = builder.load(builder.gep(data, [builder.add(values[2], step)]))
            w = _spread(builder, w if kind.dtype == types.float32 else builder.bitcast(w, _FLOAT))
            for c, y in enumerate(xs):
                i = r * x.count + c
                found[i] = _multiply(builder, kind, found[i], w, y)
        return _join(builder, found)

    return totals(totals, weights, types.intp, types.intp, x), code


@intrinsic(prefer_literal=True)
def load_rows(typing, array, index, stride, count):
    """Return the Vector(count) of what starts at array[index + i stride], as it is: of uint16, pairs of neighbours."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        registers = []
        for i in range(count.literal_value):
            place = builder.gep(data, [builder.add(values[1], builder.mul(values[2], ir.Constant(values[2].type, i)))])
            registers.append(builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=2))
        return _join(builder, registers)

    return Vector(count.literal_value)(array, types.intp, types.intp, count), code


@intrinsic
def multiply_all(typing, array, totals, a, b):
    """Return totals + a_i b_j: Vector(R C), row by row, of Vector(R) and Vector(C), numbers or pairs as in array."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        found = _split(builder, signature.args[1], values[1], totals.count)
        xs, ys = (_split(builder, signature.args[i], values[i], signature.args[i].count) for i in (2, 3))
        for r, x in enumerate(xs):
            for c, y in enumerate(ys):
                i = r * len(ys) + c
                found[i] = _multiply(builder, array, found[i], x, y)
        return _join(builder, found)

    return totals(array, totals, a, b), code


@intrinsic(prefer_literal=True)
def store_block(typing, array, index, stride, totals, count):
    """Write a Vector(R count) to R rows of array: the registers of row r from index + r stride on."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        for i, x in enumerate(_split(builder, signature.args[3], values[3], totals.count)):
            r, c = divmod(i, count.literal_value)
            step = builder.mul(values[2], ir.Constant(values[2].type, r))
            _write(context, builder, signature.args[0], values[0], builder.add(values[1], step), c, x)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, totals, count), code


@intrinsic(prefer_literal=True)
def store_sums(typing, array, index, stride, totals, count):
    """Write the sums over the lanes of totals, Vector(R count), to array[index + r stride + c]; WIDTH registers."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        registers = _split(builder, signature.args[3], values[3], totals.count)
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
                a = builder.shuffle_vector(x, y, ir.Constant(_INTS, order_a))
                b = builder.shuffle_vector(x, y, ir.Constant(_INTS, order_b))
                merged.append(builder.fadd(a, b, flags=_FLAGS))
            registers = merged
            size = size // 2
        # the first merge chose by the highest bit of the lane between the halves of the list, and so on down
        rows = totals.count // count.literal_value
        (result,) = registers
        for r in range(rows):
            order = [r * count.literal_value + c for c in range(count.literal_value)]
            part = builder.shuffle_vector(result, result, ir.Constant(ir.VectorType(_INT, count.literal_value), order))
            step = builder.mul(values[2], ir.Constant(values[2].type, r))
            place = builder.bitcast(builder.gep(data, [builder.add(values[1], step)]), part.type.as_pointer())
            builder.store(part, place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, totals, count), code


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
                rows[i] = builder.shuffle_vector(a, b, ir.Constant(_INTS, stays))
                rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(_INTS, comes))
        step *= 2
    return rows


@intrinsic
def store_scattered(typing, array, places, first, offset, vector):
    """Write a Vector(WIDTH) transposed: of sample i, one number after another, to array[places[first + i] + offset].

    places: int64.
    """

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        rows = transposed(builder, _split(builder, signature.args[4], values[4], WIDTH))
        data = context.make_array(signature.args[1])(context, builder, values[1]).data
        for i, row in enumerate(rows):
            at = builder.load(builder.gep(data, [builder.add(values[2], ir.Constant(values[2].type, i))]))
            place = _place(context, builder, signature.args[0], values[0], builder.add(at, values[3]), 0)
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(array, places, types.intp, types.intp, vector), code


@intrinsic(prefer_literal=True)
def zeros(typing, count):
    """Return a Vector(count) of zeros; count: a constant."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        return _join(builder, [_constant(0.0)] * count.literal_value)

    return Vector(count.literal_value)(count), code


@intrinsic
def fma(typing, a, b, c):
    """Return a b + c."""
    return _each((a, b, c), lambda builder, *x: _call(builder, "llvm.fma", *x))


@intrinsic
def dot(typing, array, index, x, y):
    """Return y + sum_k array[index + k] x_k of a Vector x and a float32 or Vector(1) y: Vector(1)."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        (result,) = _split(builder, signature.args[3], values[3], 1)
        for k, register in enumerate(_split(builder, signature.args[2], values[2], x.count)):
            place = builder.gep(data, [builder.add(values[1], ir.Constant(values[1].type, k))])
            result = _call(builder, "llvm.fma", _spread(builder, builder.load(place)), register, result)
        return _join(builder, [result])

    return Vector(1)(array, types.intp, x, y), code


@intrinsic
def magnitude(typing, a):
    """Return |a|."""
    return _each((a,), lambda builder, x: _call(builder, "llvm.fabs", x))


@intrinsic
def square_root(typing, a):
    """Return the square root."""
    return _each((a,), lambda builder, x: _call(builder, "llvm.sqrt", x))


@intrinsic
def where_positive(typing, a, b):
    """Return b where a > 0, else 0."""
    return _each(
        (a, b), lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, _constant(0.0)), y, _constant(0.0))
    )


@intrinsic
def choose_positive(typing, a, b, c):
    """Return b where a > 0, else c."""
    return _each((a, b, c), lambda builder, x, y, z: builder.select(builder.fcmp_ordered(">", x, _constant(0.0)), y, z))


@intrinsic
def bounded(typing, a, low, high):
    """Return a, at least low and at most high."""

    def make(builder: Any, x: Any, lowest: Any, highest: Any) -> Any:
        x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
        return builder.select(builder.fcmp_ordered(">", x, highest), highest, x)

    return _each((a, low, high), make)


def _exponential(builder: Any, x: Any) -> Any:
    """e^x = 2^n e^r with n = rint(x / ln 2), |r| <= ln 2 / 2; e^r by Cephes' polynomial, to 1.2e-7."""
    x = builder.select(builder.fcmp_ordered("<", x, _constant(-87.0)), _constant(-87.0), x)
    x = builder.select(builder.fcmp_ordered(">", x, _constant(88.0)), _constant(88.0), x)
    n = _call(builder, "llvm.rint", builder.fmul(x, _constant(1.4426950408889634)))
    r = _call(builder, "llvm.fma", n, _constant(-0.693359375), x)
    r = _call(builder, "llvm.fma", n, _constant(2.12194440e-4), r)
    p = _constant(1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = _call(builder, "llvm.fma", p, r, _constant(c))
    p = _call(builder, "llvm.fma", p, builder.fmul(r, r, flags=_FLAGS), builder.fadd(r, _constant(1.0), flags=_FLAGS))
    power = builder.shl(builder.add(builder.fptosi(n, _INTS), _whole(127)), _whole(23))
    return builder.fmul(p, builder.bitcast(power, _FLOATS), flags=_FLAGS)


@intrinsic
def exponential(typing, a):
    """Return e^a, for a from -87 to 88, beyond which it stays at e^-87 and e^88."""
    return _each((a,), _exponential)


def _elu(builder: Any, x: Any) -> Any:
    """Return x where it is above 0, else e^x - 1 = 2^n 2^f - 1 with x / ln 2 = n + f, |f| <= 1/2.

    2^f is a polynomial, to 8e-8. n is what is left of t's digits beside 1.5 * 2^23, and is added to the exponent of
    2^f as it lies there.
    """
    t = builder.fmul(x, _constant(1.4426950408889634))
    t = builder.select(builder.fcmp_ordered("<", t, _constant(-126.0)), _constant(-126.0), t)
    shifted = builder.fadd(t, _constant(12582912.0))
    f = builder.fsub(t, builder.fsub(shifted, _constant(12582912.0)))
    p = _constant(1.3276460813358426e-3)
    for c in (9.675540961325169e-3, 5.550713464617729e-2, 2.4022120237350464e-1, 6.931469440460205e-1, 1.0):
        p = _call(builder, "llvm.fma", p, f, _constant(c))
    power = builder.add(builder.bitcast(p, _INTS), builder.shl(builder.bitcast(shifted, _INTS), _whole(23)))
    below = builder.fsub(builder.bitcast(power, _FLOATS), _constant(1.0))
    return builder.select(builder.fcmp_ordered(">", x, _constant(0.0)), x, below)


@intrinsic
def elu(typing, a):
    """Return a where it is above 0, else e^a - 1 (Clevert et al., 2016)."""
    return _each((a,), _elu)


def _logarithm(builder: Any, x: Any) -> Any:
    """Ln x = e ln 2 + ln m with x = 2^e m, sqrt 1/2 <= m < sqrt 2; ln m by Cephes' polynomial, to 1e-7."""
    bits = builder.bitcast(x, _INTS)
    m = builder.bitcast(builder.or_(builder.and_(bits, _whole(0x7FFFFF)), _whole(0x3F000000)), _FLOATS)  # of [1/2, 1)
    e = builder.sitofp(builder.sub(builder.lshr(bits, _whole(23)), _whole(126)), _FLOATS)
    small = builder.fcmp_ordered("<", m, _constant(0.7071067811865476))
    e = builder.select(small, builder.fsub(e, _constant(1.0), flags=_FLAGS), e)
    m = builder.fsub(builder.select(small, builder.fadd(m, m, flags=_FLAGS), m), _constant(1.0), flags=_FLAGS)
    p = _constant(7.0376836292e-2)
    for c in (
        -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ):  # fmt: skip
        p = _call(builder, "llvm.fma", p, m, _constant(c))
    square = builder.fmul(m, m, flags=_FLAGS)
    y = builder.fmul(builder.fmul(m, square, flags=_FLAGS), p, flags=_FLAGS)
    y = _call(builder, "llvm.fma", e, _constant(-2.12194440e-4), y)
    y = _call(builder, "llvm.fma", square, _constant(-0.5), y)
    return _call(builder, "llvm.fma", e, _constant(0.693359375), builder.fadd(m, y, flags=_FLAGS))


@intrinsic
def logarithm(typing, a):
    """Return ln a of positive, normal a."""
    return _each((a,), _logarithm)


def _fold(kind: Any, make: Any) -> tuple:
    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        first, *others = _split(builder, signature.args[0], values[0], signature.args[0].count)
        for x in others:
            first = make(builder, first, x)
        return _join(builder, [first])

    return Vector(1)(kind), code


@intrinsic
def total(typing, a):
    """Return the sum of a vector's numbers, sample by sample: Vector(1)."""
    return _fold(a, lambda builder, x, y: builder.fadd(x, y, flags=_FLAGS))


@intrinsic
def largest(typing, a):
    """Return the largest of a vector's numbers, sample by sample: Vector(1)."""
    return _fold(a, lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))


@intrinsic
def over_samples(typing, a):
    """Return the sum over the samples of a Vector(1), a float32."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        x = builder.extract_value(values[0], 0)
        size = WIDTH
        while size > 1:
            size //= 2
            order = [(i + size) % WIDTH if i < size else 0 for i in range(WIDTH)]
            other = builder.shuffle_vector(x, x, ir.Constant(_INTS, order))
            x = builder.fadd(x, other, flags=_FLAGS)
        return builder.extract_element(x, ir.Constant(_INT, 0))

    return types.float32(Vector(1)), code


def _arithmetic(python_operator: Any, name: str) -> None:
    @intrinsic
    def operate(typing, a, b):
        return _each((a, b), lambda builder, x, y: getattr(builder, name)(x, y, flags=_FLAGS))

    @overload(python_operator)
    def overloaded(a, b):
        if isinstance(a, Vector) or isinstance(b, Vector):
            return lambda a, b: operate(a, b)


for _operator, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operator, _name)
