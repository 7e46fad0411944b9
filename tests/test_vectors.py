"""Compiled vectors and products against NumPy in float64."""

import numba
import numpy as np
import pytest
import torch

from fused import blocks, layers, product, registers, vectors
from fused.blocks import store_sums
from fused.registers import WIDTH
from fused.vectors import exponential, fma, largest, load, over_samples, store, total
from physics.jit import inline, kernel

DTYPES = [torch.float32, torch.bfloat16]
pytestmark = pytest.mark.usefixtures("seeded")


def bits(x):
    """Return a tensor's memory as a flat array: float32 as it is, bfloat16 as its 16 bits."""
    return (x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()).reshape(-1)


def pairs(x):
    """Return weights as products take them: float32, or two bfloat16 numbers to an int32."""
    return (x.view(torch.int32) if x.dtype == torch.bfloat16 else x).numpy().reshape(-1)


def panel(inner):
    return np.full(product.panel_size(inner), np.nan, np.float32)


# Vectors


@kernel
def combine(a, b, out):
    x, y, one = load(a, 0, 2), load(b, 0, 2), load(b, 0, 1)
    store(out, 0, x + y)
    store(out, 2 * WIDTH, x - y)
    store(out, 4 * WIDTH, x * y)
    store(out, 6 * WIDTH, x / y)
    store(out, 8 * WIDTH, one - x)
    store(out, 10 * WIDTH, np.float32(2) * x)
    store(out, 12 * WIDTH, fma(x, one, np.float32(0.5)))


def test_arithmetic_works_element_by_element_and_with_single_numbers():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-2, 2, (2, 2, WIDTH)).astype(np.float32)
    out = np.zeros((7, 2, WIDTH), np.float32)
    combine(a.ravel(), b.ravel(), out.reshape(-1))
    expected = a + b, a - b, a * b, a / b, b[0] - a, 2 * a, a.astype(float) * b[0] + 0.5
    for y, e in zip(out, expected, strict=True):
        np.testing.assert_allclose(y, e, rtol=3e-7, atol=1e-7)


@kernel
def copy(x, out, count):
    for i in range(0, count, 2 * WIDTH):
        store(out, i, load(x, i, 2))


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    rng = np.random.default_rng(0)
    high = rng.integers(0, 0x7F00, 1024, np.uint32) | (rng.integers(0, 2, 1024, np.uint32) << 15)
    low = rng.choice([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], 1024).astype(np.uint32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, 3.4028235e38, 1e-45, 1.0], np.float32)
    x = np.concatenate([(high << 16 | low).view(np.float32), np.resize(special, 32)])
    narrow = np.zeros(len(x), np.uint16)
    wide = np.zeros(len(x), np.float32)
    copy(x, narrow, len(x))
    expected = torch.from_numpy(x).bfloat16()
    if registers.HAS_PAIRS:  # the instruction takes what is too small for all its digits for nothing
        expected[torch.from_numpy(np.abs(x) < np.finfo(np.float32).tiny)] *= 0.0
    np.testing.assert_array_equal(narrow, bits(expected))
    assert (low == 0x8000).sum() > 100
    copy(narrow, wide, len(x))
    np.testing.assert_array_equal(wide, expected.float().numpy())
    copy(np.full(32, np.nan, np.float32), narrow, 32)
    copy(narrow, wide, 32)
    assert np.isnan(wide[:32]).all()


@kernel
def reduce(x, out):
    v = load(x, 0, 5)
    store(out, 0, total(v))
    store(out, WIDTH, largest(v))
    out[2 * WIDTH] = over_samples(load(x, 0, 1))


def test_sums_and_largest_of_numbers_and_samples():
    x = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    out = np.zeros(2 * WIDTH + 1, np.float32)
    reduce(x.ravel(), out)
    np.testing.assert_allclose(out[:WIDTH], x.sum(0), atol=1e-6)
    np.testing.assert_array_equal(out[WIDTH:-1], x.max(0))
    np.testing.assert_allclose(out[-1], x[0].sum(), atol=1e-6)


QUARTER = WIDTH // 4
HALF = WIDTH // 2


@kernel
def sums_in_quarters(x, out, start, stride):
    store_sums(out, start, stride, load(x, 0, WIDTH), QUARTER)


@kernel
def sums_in_halves(x, out, start, stride):
    store_sums(out, start, stride, load(x, 0, WIDTH), HALF)


@pytest.mark.parametrize(("function", "count"), [(sums_in_quarters, QUARTER), (sums_in_halves, HALF)])
def test_sums_over_samples_are_stored_row_by_row(function, count):
    x = np.random.default_rng(0).integers(-50, 50, (WIDTH, WIDTH)).astype(np.float32)
    out = np.full(60, -1e6, np.float32)
    expected = out.copy()
    for i, value in enumerate(x.sum(1)):
        expected[3 + i // count * 11 + i % count] = value
    function(x.ravel(), out, 3, 11)
    np.testing.assert_array_equal(out, expected)


def pointwise(function):
    """Return a function of one vector as a kernel over arrays."""

    @numba.njit(error_model="numpy")
    def run(x, out):
        for i in range(0, len(x), WIDTH):
            store(out, i, function(load(x, i, 1)))

    return run


def values(function, x):
    x = np.pad(x.astype(np.float32), (0, -len(x) % WIDTH))
    out = np.zeros_like(x)
    pointwise(function)(x, out)
    return x.astype(np.float64), out


def test_exponential_is_accurate_and_bounded():
    x, y = values(
        exponential, np.concatenate([np.linspace(-87, 88, 20001), np.random.default_rng(0).normal(size=10000)])
    )
    np.testing.assert_allclose(y, np.exp(x), rtol=2e-7)
    np.testing.assert_allclose(
        values(exponential, np.array([-1e3, -np.inf, 1e3, np.inf]))[1][:4], np.exp([-87.0, -87, 88, 88]), rtol=2e-7
    )


@kernel
def logarithms(x, out):
    for i in range(0, len(x), WIDTH):
        store(out, i, vectors.logarithm(load(x, i, 1)))
        store(out, len(x) + i, vectors.square_root(load(x, i, 1)))


def test_logarithm_and_square_root_are_accurate():
    x = np.concatenate((np.geomspace(1e-30, 1e30, 960), np.linspace(0.5, 2, 64))).astype(np.float32)
    out = np.zeros(2048, np.float32)
    logarithms(x, out)
    np.testing.assert_allclose(out[:1024], np.log(x.astype(float)), rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(out[1024:], np.sqrt(x.astype(float)), rtol=3e-7)


@kernel
def elus(x, out):
    for i in range(0, len(x), WIDTH):
        store(out, i, vectors.elu(load(x, i, 1)))


def test_elu_is_accurate():
    x = np.concatenate((np.linspace(-20, 5, 1000), -np.geomspace(1e-12, 1e6, 20), [0.0, -0.0, 80.0, -1e30]))
    x = x.astype(np.float32)
    out = np.zeros(1024, np.float32)
    elus(x, out)
    np.testing.assert_allclose(out, np.where(x > 0, x, np.expm1(np.minimum(x.astype(float), 0))), atol=1.5e-7)


@kernel
def pair_up(a, b, out):
    blocks.store_pairs(out, 0, load(a, 0, 1), load(b, 0, 1))


def test_pairs_are_stored_beside_one_another():
    a, b = torch.randn(2, WIDTH)
    out = np.zeros(WIDTH, np.float32)
    pair_up(a.numpy(), b.numpy(), out)
    np.testing.assert_array_equal(out.view(np.uint16), bits(torch.stack((a, b), 1).bfloat16()))


@kernel
def scatter(x, places, out):
    blocks.store_scattered(out, places, 1, 3, blocks.load_rows(x, 0, WIDTH, WIDTH))


def test_a_square_is_scattered_by_its_columns():
    x = np.arange(WIDTH * WIDTH, dtype=np.float32).reshape(WIDTH, WIDTH)
    places = 40 * np.random.default_rng(0).permutation(WIDTH + 1)
    out = np.full(40 * WIDTH + 80, -1.0, np.float32)
    scatter(x.ravel(), places, out)
    expected = np.full_like(out, -1.0)
    for i in range(WIDTH):
        expected[places[1 + i] + 3 :][:WIDTH] = x[:, i]
    np.testing.assert_array_equal(out, expected)


def test_tanh_and_sigmoid_are_accurate():
    around = np.concatenate(
        [np.linspace(-30, 30, 20001), np.random.default_rng(0).normal(scale=0.01, size=5000), [-np.inf, np.inf, 1e30]]
    )
    x, y = values(layers.tanh, around)
    np.testing.assert_allclose(y, np.tanh(x), rtol=5e-7)
    x, y = values(layers.sigmoid, around)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x)), atol=2e-7)


# Products


def widened(x):
    return x.float().double().numpy()


@kernel
def multiply(rows, inner, weight, x, x_stride, y, y_stride, columns, panel):
    product.product(rows, inner, weight, x, x_stride, y, y_stride, columns, panel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [
        (4, 4, 16),
        (8, 12, 64),
        (12, 28, 80),
        (20, 64, 48),
        (64, 32, 64),
        (256, 96, 160),
        (64, 64, 112),
        (32, 32, 32),
        (76, 140, 96),
        (44, 40, 64),
    ],
)
def test_products_are_numpys(rows, inner, columns, dtype):
    weight = torch.randn(rows * inner + 32).to(dtype)  # numbers follow, which tiles read
    weight = weight[: rows * inner].view(rows, inner)
    x = torch.randn(inner, columns + 32).to(dtype)
    y = torch.full((rows, columns + 16), 7.0, dtype=dtype)
    multiply(rows, inner, pairs(weight), bits(x), columns + 32, bits(y), columns + 16, columns, panel(inner))
    a = widened(weight)
    b = widened(x[:, :columns])
    error = np.abs(widened(y)[:, :columns] - a @ b)
    rounding = 2.0**-8 * np.abs(a @ b) if dtype == torch.bfloat16 else 0.0
    assert (error <= inner * 2.0**-23 * (np.abs(a) @ np.abs(b)) + 1.01 * rounding).all()
    assert (y[:, columns:] == 7).all()


@kernel
def packed(weight, rows, inner, out, transposed):
    if transposed:
        product.pack_transposed(weight, rows, inner, out)
    else:
        product.pack(weight, rows * inner, out)


@pytest.mark.parametrize("transposed", [False, True])
def test_numbers_follow_packed_weights(transposed):
    weight = np.arange(12 * 20, dtype=np.float32).reshape(12, 20)
    out = np.full(12 * 20 + 64, 0x7FC0, np.uint16)  # not numbers, which tiles would read
    packed(weight.ravel(), 12, 20, out, transposed)
    expected = (weight.T if transposed else weight).ravel()
    np.testing.assert_array_equal((out[: 12 * 20].astype(np.uint32) << 16).view(np.float32), expected)
    assert not out[12 * 20 : 12 * 20 + 32].any()


@kernel
def outer(rows, inner, dy, y_stride, x, x_stride, columns, dweight):
    product.weight_gradient(rows, inner, dy, y_stride, x, x_stride, columns, dweight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(4, 4, 32), (8, 12, 96), (32, 20, 224), (96, 48, 224), (76, 140, 64)]
)
def test_weight_gradients_are_numpys(rows, inner, columns, dtype):
    dy = torch.randn(rows, columns + 16).to(dtype)
    x = torch.randn(inner, columns + 32).to(dtype)
    dweight = torch.zeros(rows, inner)
    outer(rows, inner, bits(dy), columns + 16, bits(x), columns + 32, columns, bits(dweight))
    a = widened(dy[:, :columns])
    b = widened(x[:, :columns]).T
    assert (np.abs(dweight.double().numpy() - a @ b) <= columns * 2.0**-23 * (np.abs(a) @ np.abs(b))).all()


@pytest.mark.parametrize(
    ("has_pairs", "has_tiles"), [(False, False), (registers.HAS_PAIRS, False), (registers.HAS_PAIRS, product.HAS_TILES)]
)
def test_pairs_are_multiplied_by_every_instruction_there_is(has_pairs, has_tiles, monkeypatch):
    monkeypatch.setattr(blocks, "HAS_PAIRS", has_pairs)
    monkeypatch.setattr(product, "HAS_TILES", has_tiles)
    monkeypatch.setattr(product, "tile_product", inline(product.tile_product.py_func))  # compiled anew
    for name, count in (("block_product", product.REGISTERS), ("_two", 2), ("_one", 1)):
        monkeypatch.setattr(product, name, product.make_block_product(count))
    monkeypatch.setattr(product, "panel_product", product.make_panel_product())
    run = numba.njit(product.product.py_func)
    weight = torch.randn(64, 96).bfloat16()
    x = torch.randn(96, 160).bfloat16()
    y = torch.zeros(64, 160)
    run(64, 96, pairs(weight), bits(x), 160, bits(y), 160, 160, panel(96))
    code = next(iter(run.inspect_llvm().values()))
    assert ("dpbf16ps.512" in code) == has_pairs and ("tdpbf16ps" in code) == has_tiles
    a = widened(weight)
    b = widened(x)
    assert (np.abs(y.double().numpy() - a @ b) <= 96 * 2.0**-23 * (np.abs(a) @ np.abs(b))).all()
