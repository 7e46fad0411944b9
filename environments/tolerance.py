"""A reward that is 1 within bounds and falls off outside of them, one source for arrays and for kernels.

``tolerance`` has the arguments, values and errors of ``dm_control.utils.rewards.tolerance``. In a kernel
it takes a scalar, whose precision it keeps, and the sigmoid's name as a literal; a margin and a value
that are constants cost nothing there. What a kernel cannot report, ``check`` does beforehand.
"""

from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.core.errors import RequireLiteralValue
from numba.extending import overload, register_jitable
from numba.np.numpy_support import as_dtype

from physics import spatial
from physics.jit import real

REAL = from_dtype(real)


def _exp(x: Any) -> Any:
    return np.exp(x)


def _sin(x: Any) -> Any:
    return np.sin(x)


# As the library's functions they would be called lane by lane: 1.9 ns a gaussian, 0.2 with these; 5.4 ns a cosine, 0.3.
@overload(_exp, strict=False)
def _compiled_exp(x: Any) -> Any:
    return (lambda x: spatial.exp(x)) if x == REAL else (lambda x: np.exp(x))


@overload(_sin, strict=False)
def _compiled_sin(x: Any) -> Any:
    return (lambda x: spatial.sincos(x)[0]) if x == REAL else (lambda x: np.sin(x))


def _sech(x: Any, one: Any) -> Any:
    """Return 1 / cosh(x)."""
    e = _exp(-x)
    return (e + e) / (one + e * e)


def _arsech(y: Any) -> Any:
    """Return x of at least 0 for which 1 / cosh(x) is y."""
    return np.log((1.0 + np.sqrt(1.0 - y * y)) / y)


# What a distance in margins is multiplied by for the value y at 1, and the value at the product s; one is 1 in the
# precision of s, for a literal would be of double precision in a kernel. Of a number and a NaN fmin is the number.
SIGMOIDS = {
    "gaussian": (lambda y: np.sqrt(-np.log(y)), lambda s, one: _exp(-s * s)),
    "hyperbolic": (_arsech, _sech),
    "long_tail": (lambda y: np.sqrt(1.0 / y - 1.0), lambda s, one: one / (one + s * s)),
    "reciprocal": (lambda y: 1.0 / y - 1.0, lambda s, one: one / (one + s)),
    "cosine": (lambda y: np.arcsin(np.sqrt(1.0 - y)), lambda s, one: one - np.square(_sin(np.fmin(s, np.arcsin(one))))),
    "linear": (lambda y: 1.0 - y, lambda s, one: one - np.fmin(s, one)),
    "quadratic": (lambda y: np.sqrt(1.0 - y), lambda s, one: one - np.fmin(s * s, one)),
    "tanh_squared": (lambda y: _arsech(np.sqrt(y)), lambda s, one: np.square(_sech(s, one))),
}
for _formulas in SIGMOIDS.values():
    for _formula in _formulas:
        register_jitable(_formula)


def check(
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> None:
    """Raise ValueError, naming the argument, unless ``tolerance`` takes these."""
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"bounds: expected a lower one of at most the upper one, got {bounds[0]} and {bounds[1]}")
    if not margin >= 0:
        raise ValueError(f"margin: expected at least 0, got {margin}")
    if sigmoid not in SIGMOIDS:
        raise ValueError(f"sigmoid: expected one of {', '.join(SIGMOIDS)}, got {sigmoid!r}")
    ends = sigmoid in ("cosine", "linear", "quadratic")
    if margin > 0 and not (0 < value_at_margin < 1 or (ends and value_at_margin == 0)):
        raise ValueError(
            f"value_at_margin: expected a number in {'[' if ends else '('}0, 1) for {sigmoid}, got {value_at_margin}"
        )


def tolerance(
    x: Any,
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """Return 1 where x is within bounds, less the farther it is outside: a float for a scalar, an array for an array.

    x: a number or an array of any shape. bounds: lower and upper, each allowed and each may be infinite.
    margin: the distance from the nearer bound at which the value is value_at_margin; with 0 the value is
    0 outside. sigmoid: how it falls off, a name in SIGMOIDS; cosine, linear and quadratic reach 0.
    value_at_margin: between 0 and 1; without a margin it does not matter. Raises as ``check`` does.
    """
    check(bounds, margin, sigmoid, value_at_margin)
    factor, shape = SIGMOIDS[sigmoid]
    low = float(bounds[0])
    high = float(bounds[1])
    numbers = np.asarray(x) + 0.0  # whole numbers as float64, float32 as it is
    one = numbers.dtype.type(1)
    value = one - one
    if margin > 0:
        with np.errstate(all="ignore"):  # what comes out within bounds is dropped
            value = shape(np.maximum(low - numbers, numbers - high) * float(factor(value_at_margin) / margin), one)
    value = np.where((low <= numbers) & (numbers <= high), one, value)
    return float(value) if np.isscalar(x) else value


@overload(tolerance, strict=False, prefer_literal=True)
def _compiled_tolerance(
    x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "gaussian", value_at_margin: Any = 0.1
) -> Any:
    name = getattr(sigmoid, "literal_value", getattr(sigmoid, "value", sigmoid))
    if not isinstance(name, str):
        raise RequireLiteralValue(f"sigmoid: expected a literal, one of {', '.join(SIGMOIDS)}")
    check(sigmoid=name)
    factor, shape = SIGMOIDS[name]
    number = as_dtype(x).type if isinstance(x, types.Float) else np.float64
    zero = number(0)
    one = number(1)

    def compiled(
        x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "gaussian", value_at_margin: Any = 0.1
    ) -> Any:
        low = number(bounds[0])
        high = number(bounds[1])
        if low <= x and x <= high:
            return one
        if margin > 0.0:
            return shape(max(low - x, x - high) * number(factor(value_at_margin) / margin), one)
        return zero

    return compiled
