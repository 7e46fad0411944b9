"""A reward within bounds against a table of dm_control's, on arrays, on scalars and in compiled kernels."""

import itertools

import numba
import numpy as np
import pytest
import tolerance_table as oracle

from environments.tolerance import SIGMOIDS, check, tolerance
from physics.jit import kernel

INF = np.inf
ENDING = oracle.ENDING
TABLE, X = oracle.read()


def rows(sigmoid):
    """Return arguments and dm_control's values (len(X)) of every row with a sigmoid that is not refused."""
    given = [row for row in TABLE.items() if row[0][3] == sigmoid and row[1] is not None]
    found = [((low, high), margin, value, row) for (low, high, margin, _, value), row in given]
    assert len(found) >= 24
    return found


def compiled(sigmoid):
    @kernel
    def each(x, low, high, margin, value, out):
        for i in range(x.size):
            out[i] = tolerance(x[i], (low, high), margin, sigmoid, value)

    return each


@kernel
def written_out(x):
    return (
        tolerance(x), tolerance(x, (-0.5, 0.75)), tolerance(x, (0.25, INF), 2),
        tolerance(x, margin=2.0, sigmoid="hyperbolic"), tolerance(x, (0, 0), 1.5, "cosine", 0),
        tolerance(x, value_at_margin=0.3, margin=4.0, sigmoid="reciprocal", bounds=(-1, 0.0)),
    )  # fmt: skip


def test_all_eight_are_there():
    assert set(SIGMOIDS) == set(oracle.SIGMOIDS)


def test_the_table_has_what_its_script_asks():
    assert list(TABLE) == list(dict.fromkeys(oracle.key(**(oracle.DEFAULTS | given)) for given in oracle.cases()))
    np.testing.assert_array_equal(X, oracle.X)
    assert sum(row is None for row in TABLE.values()) == len(oracle.WRONG)
    assert all(row is None or len(row) == len(X) for row in TABLE.values())


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_arrays_are_as_dm_control_s(sigmoid):
    for bounds, margin, value, theirs in rows(sigmoid):
        case = bounds, margin, sigmoid, value
        np.testing.assert_allclose(tolerance(X, *case), theirs, rtol=0, atol=1e-12, err_msg=str(case))
        np.testing.assert_allclose(tolerance(X.astype(np.float32), *case), theirs, rtol=0, atol=1e-6, err_msg=str(case))


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_scalars_are_as_dm_control_s(sigmoid):
    for bounds, margin, value, theirs in rows(sigmoid):
        for x, expected in zip(X, theirs, strict=True):
            for number in (float(x), np.float32(x), *([int(x)] if float(x).is_integer() else [])):
                ours = tolerance(number, bounds, margin, sigmoid, value)
                assert type(ours) is float
                assert ours == pytest.approx(expected, abs=1e-6, nan_ok=True), (number, bounds, margin, value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_kernels_are_as_dm_control_s(sigmoid, dtype):
    each = compiled(sigmoid)
    x = X.astype(dtype)
    out = np.empty_like(x)
    for (low, high), margin, value, theirs in rows(sigmoid):
        out[:] = np.nan
        each(x, low, high, margin, value, out)
        np.testing.assert_allclose(
            out, theirs, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-12, err_msg=str((low, high, margin, value))
        )


def test_arguments_may_be_left_out_or_named():
    spelt = [TABLE[oracle.key(**(oracle.DEFAULTS | given))] for given in oracle.SPELT]
    for given, theirs in zip(oracle.SPELT, spelt, strict=True):
        np.testing.assert_allclose(tolerance(X, **given), theirs, rtol=0, atol=1e-12, err_msg=str(given))
    for x, *theirs in zip(X, *spelt[: len(written_out(0.0))], strict=True):
        np.testing.assert_allclose(written_out(x), theirs, rtol=0, atol=1e-12)
        np.testing.assert_allclose(written_out(np.float32(x)), theirs, rtol=0, atol=1e-6)


def test_kernels_keep_the_precision():
    for number, precision in ((np.float32(0.3), numba.float32), (np.float64(0.3), numba.float64), (1, numba.float64)):
        written_out(number)
        returned = {
            signature[0]: written_out.overloads[signature].signature.return_type for signature in written_out.signatures
        }
        assert set(returned[numba.typeof(number)].types) == {precision}


def test_arrays_keep_shape_and_precision():
    for sigmoid, margin in itertools.product(SIGMOIDS, (0.0, np.float64(0.5))):
        for dtype in (np.float32, np.float64):
            values = tolerance(np.ones((2, 3), dtype), (np.float64(0.0), np.float64(0.1)), margin, sigmoid)
            assert values.shape == (2, 3)
            assert values.dtype == dtype
    whole = tolerance(np.array([0, 1, 2]), (1, 1))
    np.testing.assert_array_equal(whole, [0, 1, 0])
    assert whole.dtype == tolerance([0, 1], margin=1.0).dtype == np.float64


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_the_value_at_the_margin_is_that_asked_for(sigmoid):
    values = tolerance(np.array([1.0, 3.0, 2.5, 3.5, 0.5, 4.0, 4.5, -0.5]), (1, 3), 0.5, sigmoid, 0.3)
    np.testing.assert_array_equal(values[:3], 1)
    np.testing.assert_allclose(values[3:5], 0.3, rtol=0, atol=1e-12)
    assert (np.diff(values[[1, 3, 5, 6]]) <= 0).all()
    assert values[6] == values[7] < 0.3


def test_formulas_by_hand():
    # at half a margin
    half = {
        "gaussian": 0.1**0.25, "hyperbolic": 1 / np.cosh(0.5 * np.arccosh(10)), "long_tail": 1 / (1 + 9 / 4),
        "reciprocal": 1 / (1 + 9 / 2), "cosine": 0.5 + 0.5 * np.cos(0.5 * np.arccos(-0.8)), "linear": 0.55,
        "quadratic": 1 - 0.9 / 4,
        "tanh_squared": 1 - np.tanh(0.5 * np.arctanh(np.sqrt(0.9))) ** 2,
    }  # fmt: skip
    for sigmoid, value in half.items():
        assert tolerance(-1.0, margin=2.0, sigmoid=sigmoid) == pytest.approx(value, abs=1e-12), sigmoid


WRONG = [
    ({"bounds": (1.0, 0.5)}, "bounds: expected .* got 1.0 and 0.5"),
    ({"bounds": (INF, -INF)}, "bounds: expected .* got inf and -inf"),
    ({"margin": -0.1}, "margin: expected at least 0, got -0.1"),
    ({"margin": 1.0, "sigmoid": "bell"}, "sigmoid: expected one of gaussian, hyperbolic, .*, tanh_squared, got 'bell'"),
    *[
        ({"margin": 1.0, "sigmoid": s, "value_at_margin": v}, f"value_at_margin: expected .* for {s}, got {v}")
        for s in SIGMOIDS
        for v in (-0.1, 1, 1.5)
    ],
    *[
        ({"margin": 1.0, "sigmoid": s, "value_at_margin": 0}, rf"\(0, 1\) for {s}, got 0")
        for s in SIGMOIDS
        if s not in ENDING
    ],
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments_are_named_where_dm_control_raises_too(arguments, message):
    with pytest.raises(ValueError, match=message):
        tolerance(0.3, **arguments)
    with pytest.raises(ValueError, match=message):
        check(**arguments)
    assert TABLE[oracle.key(**(oracle.DEFAULTS | arguments))] is None


def test_numbers_that_are_not_are_refused():
    for arguments in ({"bounds": (np.nan, 1.0)}, {"margin": np.nan}, {"margin": 1.0, "value_at_margin": np.nan}):
        with pytest.raises(ValueError, match=next(reversed(arguments))):
            tolerance(0.3, **arguments)


def test_without_a_margin_its_value_does_not_matter():
    theirs = TABLE[oracle.key(**(oracle.DEFAULTS | {"value_at_margin": 7.0}))]
    np.testing.assert_array_equal(tolerance(X, value_at_margin=7.0), theirs)
    assert set(theirs) == {0.0, 1.0}


def test_kernels_with_an_unknown_sigmoid_are_not_compiled():
    with pytest.raises(ValueError, match=r"sigmoid: expected one of gaussian.* got 'bell'"):
        compiled("bell")(X, 0.0, 0.0, 1.0, 0.1, np.empty_like(X))

    @kernel
    def named_later(x, sigmoid):
        return tolerance(x, (0.0, 0.0), 1.0, sigmoid)

    with pytest.raises(numba.TypingError, match="sigmoid: expected a literal, one of gaussian"):
        named_later(0.5, "linear")
