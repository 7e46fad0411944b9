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

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fused.registers import (
    FLAGS,
    FLOATS,
    INT,
    INTS,
    SHORT,
    WIDTH,
    Vector,
    call,
    constant,
    each,
    join,
    read,
    split,
    spread,
    whole,
    write,
)


@intrinsic(prefer_literal=True)
def load(typing, array, index, count):
    """Return the Vector(count) that starts at array[index]; count: a constant."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[0]
        registers = []
        for i in range(count.literal_value):
            x = read(context, builder, kind, values[0], values[1], i)
            if kind.dtype == types.uint16:
                x = builder.bitcast(builder.shl(builder.zext(x, INTS), whole(16)), FLOATS)
            registers.append(x)
        return join(builder, registers)

    return Vector(count.literal_value)(array, types.intp, count), code


@intrinsic
def store(typing, array, index, vector):
    """Write a vector to array[index] and on."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        for i, x in enumerate(split(builder, signature.args[2], values[2], vector.count)):
            write(context, builder, signature.args[0], values[0], values[1], i, x)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


@intrinsic
def put(typing, array, index, x):
    """Set array[index] to one float32 number, rounded where the array holds bfloat16."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        kind = signature.args[0]
        (array, index, number) = values
        if kind.dtype == types.uint16:
            u = builder.bitcast(number, INT)
            odd = builder.and_(builder.lshr(u, ir.Constant(INT, 16)), ir.Constant(INT, 1))
            u = builder.add(builder.add(u, ir.Constant(INT, 0x7FFF)), odd)
            number = builder.trunc(builder.lshr(u, ir.Constant(INT, 16)), SHORT)
        data = context.make_array(kind)(context, builder, array).data
        builder.store(number, builder.gep(data, [index]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), code


@intrinsic(prefer_literal=True)
def zeros(typing, count):
    """Return a Vector(count) of zeros; count: a constant."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        return join(builder, [constant(0.0)] * count.literal_value)

    return Vector(count.literal_value)(count), code


@intrinsic
def fma(typing, a, b, c):
    """Return a b + c."""
    return each((a, b, c), lambda builder, *x: call(builder, "llvm.fma", *x))


@intrinsic
def dot(typing, array, index, x, y):
    """Return y + sum_k array[index + k] x_k of a Vector x and a float32 or Vector(1) y: Vector(1)."""

    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        (result,) = split(builder, signature.args[3], values[3], 1)
        for k, register in enumerate(split(builder, signature.args[2], values[2], x.count)):
            place = builder.gep(data, [builder.add(values[1], ir.Constant(values[1].type, k))])
            result = call(builder, "llvm.fma", spread(builder, builder.load(place)), register, result)
        return join(builder, [result])

    return Vector(1)(array, types.intp, x, y), code


@intrinsic
def magnitude(typing, a):
    """Return |a|."""
    return each((a,), lambda builder, x: call(builder, "llvm.fabs", x))


@intrinsic
def square_root(typing, a):
    """Return the square root."""
    return each((a,), lambda builder, x: call(builder, "llvm.sqrt", x))


@intrinsic
def where_positive(typing, a, b):
    """Return b where a > 0, else 0."""
    return each(
        (a, b), lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, constant(0.0)), y, constant(0.0))
    )


@intrinsic
def choose_positive(typing, a, b, c):
    """Return b where a > 0, else c."""
    return each((a, b, c), lambda builder, x, y, z: builder.select(builder.fcmp_ordered(">", x, constant(0.0)), y, z))


@intrinsic
def bounded(typing, a, low, high):
    """Return a, at least low and at most high."""

    def make(builder: Any, x: Any, lowest: Any, highest: Any) -> Any:
        x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
        return builder.select(builder.fcmp_ordered(">", x, highest), highest, x)

    return each((a, low, high), make)


def _exponential(builder: Any, x: Any) -> Any:
    """e^x = 2^n e^r with n = rint(x / ln 2), |r| <= ln 2 / 2; e^r by Cephes' polynomial, to 1.2e-7."""
    x = builder.select(builder.fcmp_ordered("<", x, constant(-87.0)), constant(-87.0), x)
    x = builder.select(builder.fcmp_ordered(">", x, constant(88.0)), constant(88.0), x)
    n = call(builder, "llvm.rint", builder.fmul(x, constant(1.4426950408889634)))
    r = call(builder, "llvm.fma", n, constant(-0.693359375), x)
    r = call(builder, "llvm.fma", n, constant(2.12194440e-4), r)
    p = constant(1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = call(builder, "llvm.fma", p, r, constant(c))
    p = call(builder, "llvm.fma", p, builder.fmul(r, r, flags=FLAGS), builder.fadd(r, constant(1.0), flags=FLAGS))
    power = builder.shl(builder.add(builder.fptosi(n, INTS), whole(127)), whole(23))
    return builder.fmul(p, builder.bitcast(power, FLOATS), flags=FLAGS)


@intrinsic
def exponential(typing, a):
    """Return e^a, for a from -87 to 88, beyond which it stays at e^-87 and e^88."""
    return each((a,), _exponential)


def _elu(builder: Any, x: Any) -> Any:
    """Return x where it is above 0, else e^x - 1 = 2^n 2^f - 1 with x / ln 2 = n + f, |f| <= 1/2.

    2^f is a polynomial, to 8e-8. n is what is left of t's digits beside 1.5 * 2^23, and is added to the exponent of
    2^f as it lies there.
    """
    t = builder.fmul(x, constant(1.4426950408889634))
    t = builder.select(builder.fcmp_ordered("<", t, constant(-126.0)), constant(-126.0), t)
    shifted = builder.fadd(t, constant(12582912.0))
    f = builder.fsub(t, builder.fsub(shifted, constant(12582912.0)))
    p = constant(1.3276460813358426e-3)
    for c in (9.675540961325169e-3, 5.550713464617729e-2, 2.4022120237350464e-1, 6.931469440460205e-1, 1.0):
        p = call(builder, "llvm.fma", p, f, constant(c))
    power = builder.add(builder.bitcast(p, INTS), builder.shl(builder.bitcast(shifted, INTS), whole(23)))
    below = builder.fsub(builder.bitcast(power, FLOATS), constant(1.0))
    return builder.select(builder.fcmp_ordered(">", x, constant(0.0)), x, below)


@intrinsic
def elu(typing, a):
    """Return a where it is above 0, else e^a - 1 (Clevert et al., 2016)."""
    return each((a,), _elu)


def _logarithm(builder: Any, x: Any) -> Any:
    """Ln x = e ln 2 + ln m with x = 2^e m, sqrt 1/2 <= m < sqrt 2; ln m by Cephes' polynomial, to 1e-7."""
    bits = builder.bitcast(x, INTS)
    m = builder.bitcast(builder.or_(builder.and_(bits, whole(0x7FFFFF)), whole(0x3F000000)), FLOATS)  # of [1/2, 1)
    e = builder.sitofp(builder.sub(builder.lshr(bits, whole(23)), whole(126)), FLOATS)
    small = builder.fcmp_ordered("<", m, constant(0.7071067811865476))
    e = builder.select(small, builder.fsub(e, constant(1.0), flags=FLAGS), e)
    m = builder.fsub(builder.select(small, builder.fadd(m, m, flags=FLAGS), m), constant(1.0), flags=FLAGS)
    p = constant(7.0376836292e-2)
    for c in (
        -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ):  # fmt: skip
        p = call(builder, "llvm.fma", p, m, constant(c))
    square = builder.fmul(m, m, flags=FLAGS)
    y = builder.fmul(builder.fmul(m, square, flags=FLAGS), p, flags=FLAGS)
    y = call(builder, "llvm.fma", e, constant(-2.12194440e-4), y)
    y = call(builder, "llvm.fma", square, constant(-0.5), y)
    return call(builder, "llvm.fma", e, constant(0.693359375), builder.fadd(m, y, flags=FLAGS))


@intrinsic
def logarithm(typing, a):
    """Return ln a of positive, normal a."""
    return each((a,), _logarithm)


def _fold(kind: Any, make: Any) -> tuple:
    def code(context: Any, builder: Any, signature: Any, values: tuple) -> Any:
        first, *others = split(builder, signature.args[0], values[0], signature.args[0].count)
        for x in others:
            first = make(builder, first, x)
        return join(builder, [first])

    return Vector(1)(kind), code


@intrinsic
def total(typing, a):
    """Return the sum of a vector's numbers, sample by sample: Vector(1)."""
    return _fold(a, lambda builder, x, y: builder.fadd(x, y, flags=FLAGS))


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
            other = builder.shuffle_vector(x, x, ir.Constant(INTS, order))
            x = builder.fadd(x, other, flags=FLAGS)
        return builder.extract_element(x, ir.Constant(INT, 0))

    return types.float32(Vector(1)), code


def _arithmetic(python_operator: Any, name: str) -> None:
    @intrinsic
    def operate(typing, a, b):
        return each((a, b), lambda builder, x, y: getattr(builder, name)(x, y, flags=FLAGS))

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
