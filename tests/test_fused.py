"""Compiled vectors, products, layers, heads and losses against NumPy in float64 and the same equations in plain PyTorch."""

import numba
import numpy as np
import pytest
import torch

import fused
from config import NetworkCfg
from entity import BodyEncoder, Reflection, dense, lstm_sequence, policy_head, value_head
from environments.contracts import Body, Mirror, Node
from fused import layers, product, vectors
from fused.vectors import WIDTH, exponential, fma, largest, load, over_samples, store, store_sums, total
from physics.jit import kernel
from training import ppo
from world_model import linear, normed, state_space_sequence

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def bits(x):
    """Return a tensor's memory as a flat array: float32 as it is, bfloat16 as its 16 bits."""
    return (x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()).reshape(-1)


def pairs(x):
    """Return weights as products take them: float32, or two bfloat16 numbers to an int32."""
    return (x.view(torch.int32) if x.dtype == torch.bfloat16 else x).numpy().reshape(-1)


def panel(inner):
    return np.zeros(inner * product.REGISTERS * WIDTH, np.float32)


def apart(a, b):
    """Return the distance of two tensors relative to the second's size."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12))


def parameter(*shape, scale=1.0):
    return (scale * torch.randn(shape)).requires_grad_()


def results(function, inputs, directions):
    """Return outputs of a function, and the gradients of inputs that have one, of the outputs' products with directions."""
    for x in inputs:
        x.grad = None
    out = function()
    outs = out if isinstance(out, tuple) else (out,)
    sum((y.float() * d).sum() for y, d in zip(outs, directions, strict=False)).backward()
    return [y.detach() for y in outs], [x.grad for x in inputs]


def assert_alike(fast, plain, tolerance):
    for a, b in zip(fast[0] + fast[1], plain[0] + plain[1], strict=True):
        assert a.shape == b.shape
        assert b.norm() > 0
        assert apart(a, b) < tolerance


# Vectors


@kernel
def combine(a, b, out):
    x, y, one = load(a, 0, 2), load(b, 0, 2), load(b, 0, 1)
    store(out, 0, x + y)
    store(out, 32, x - y)
    store(out, 64, x * y)
    store(out, 96, x / y)
    store(out, 128, one - x)
    store(out, 160, np.float32(2) * x)
    store(out, 192, fma(x, one, np.float32(0.5)))


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


@kernel
def sums_of_four(x, out, start, stride):
    store_sums(out, start, stride, load(x, 0, 16), 4)


@kernel
def sums_of_eight(x, out, start, stride):
    store_sums(out, start, stride, load(x, 0, 16), 8)


@pytest.mark.parametrize(("function", "count"), [(sums_of_four, 4), (sums_of_eight, 8)])
def test_sums_over_samples_are_stored_row_by_row(function, count):
    x = np.random.default_rng(0).integers(-50, 50, (16, WIDTH)).astype(np.float32)
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
    for i in range(0, len(x), 16):
        store(out, i, vectors.logarithm(load(x, i, 1)))
        store(out, len(x) + i, vectors.square_root(load(x, i, 1)))


def test_logarithm_and_square_root_are_accurate():
    x = np.concatenate((np.geomspace(1e-30, 1e30, 960), np.linspace(0.5, 2, 64))).astype(np.float32)
    out = np.zeros(2048, np.float32)
    logarithms(x, out)
    np.testing.assert_allclose(out[:1024], np.log(x.astype(float)), rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(out[1024:], np.sqrt(x.astype(float)), rtol=3e-7)


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
    ("rows", "inner", "columns"), [(4, 4, 16), (8, 12, 64), (12, 28, 80), (20, 64, 48), (256, 96, 160)]
)
def test_products_are_numpys(rows, inner, columns, dtype):
    weight = torch.randn(rows, inner).to(dtype)
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
def outer(rows, inner, dy, y_stride, x, x_stride, columns, dweight):
    product.weight_gradient(rows, inner, dy, y_stride, x, x_stride, columns, dweight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inner", "columns"), [(4, 4, 32), (8, 12, 96), (32, 20, 224)])
def test_weight_gradients_are_numpys(rows, inner, columns, dtype):
    dy = torch.randn(rows, columns + 16).to(dtype)
    x = torch.randn(inner, columns + 32).to(dtype)
    dweight = torch.zeros(rows, inner)
    outer(rows, inner, bits(dy), columns + 16, bits(x), columns + 32, columns, bits(dweight))
    a = widened(dy[:, :columns])
    b = widened(x[:, :columns]).T
    assert (np.abs(dweight.double().numpy() - a @ b) <= columns * 2.0**-23 * (np.abs(a) @ np.abs(b))).all()


@pytest.mark.parametrize("has_pairs", [False, vectors.HAS_PAIRS])
def test_pairs_are_multiplied_with_and_without_the_instruction(has_pairs, monkeypatch):
    monkeypatch.setattr(vectors, "HAS_PAIRS", has_pairs)
    run = numba.njit(product.product.py_func)  # compiled anew
    weight = torch.randn(8, 36).bfloat16()
    x = torch.randn(36, 80).bfloat16()
    y = torch.zeros(8, 80)
    run(8, 36, pairs(weight), bits(x), 80, bits(y), 80, 80, panel(36))
    assert ("dpbf16ps" in next(iter(run.inspect_llvm().values()))) == has_pairs
    a = widened(weight)
    b = widened(x)
    assert (np.abs(y.double().numpy() - a @ b) <= 36 * 2.0**-23 * (np.abs(a) @ np.abs(b))).all()


# Layers

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("samples", [32, 96])
def test_dense_layers(samples, sides, dtype):
    x = parameter(sides, 12, samples)
    weight = parameter(sides, 8, 12, scale=0.4)
    bias = parameter(8)
    directions = [torch.randn(sides, 8, samples)]
    plain = results(lambda: dense(x, weight, bias), (x, weight, bias), directions)
    assert_alike(
        results(lambda: fused.Dense.apply(x.to(dtype), weight, bias), (x, weight, bias), directions),
        plain,
        TOLERANCE[dtype],
    )
    data = x.detach().to(dtype)
    assert_alike(
        results(lambda: fused.Dense.apply(data, weight, bias), (weight, bias), directions),
        (plain[0], plain[1][1:]),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("samples", [32, 96, 224])
@pytest.mark.parametrize(("fast", "plain"), [(fused.Normed, normed), (fused.Linear, linear)])
def test_normalised_and_linear_layers(fast, plain, samples, sides, dtype):
    x = parameter(sides, 12, samples)
    weight = parameter(sides, 20, 12, scale=0.4)
    more = parameter(20)
    directions = [torch.randn(sides, 20, samples)]
    expected = results(lambda: plain(x, weight, more), (x, weight, more), directions)
    assert_alike(
        results(lambda: fast.apply(x.to(dtype), weight, more), (x, weight, more), directions),
        expected,
        TOLERANCE[dtype],
    )
    if fast is fused.Normed:
        data = x.detach().to(dtype)
        assert_alike(
            results(lambda: fast.apply(data, weight, more), (weight, more), directions),
            (expected[0], expected[1][1:]),
            TOLERANCE[dtype],
        )


def state_space(sides, steps, n, evidence):
    """Return arguments of a sequence: 4 groups of 6 classes to a side, 8 deterministic and 12 hidden features."""
    deter = 8
    stoch = 24
    hidden = 12
    actions = 4
    samples = steps * n
    wide = (stoch + actions, hidden + deter, deter + evidence, hidden)
    weights = []
    for rows, inner in zip((hidden, 3 * deter, hidden, stoch), wide, strict=True):
        weights += [parameter(sides, rows, inner, scale=0.4), parameter(rows)]
    latent = parameter(sides, deter + stoch, n)
    seen = parameter(sides, evidence, samples) if evidence else None
    keep = (torch.rand(steps, n) < 0.7).float()
    return latent, torch.randn(sides, actions, samples), seen, keep, torch.rand(sides, 4, samples), 4, *weights


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("steps", "n"), [(1, 32), (6, 96)])
@pytest.mark.parametrize("evidence", [0, 16])
@pytest.mark.parametrize("drawn", [False, True])
def test_state_space_sequences_with_resets_inside(steps, n, evidence, sides, drawn):
    latent, action, seen, keep, noise, groups, *weights = state_space(sides, steps, n, evidence)
    arguments = latent, action, seen, keep, noise if drawn else None, groups, *weights
    leaves = [x for x in (latent, seen, *weights) if x is not None]
    directions = [torch.randn(sides, rows, steps * n) for rows in (32, 8, 24)] + [torch.zeros(sides, 32, n)]
    plain = results(lambda: state_space_sequence(*arguments), leaves, directions)
    assert_alike(results(lambda: fused.StateSpaceSequence.apply(*arguments), leaves, directions), plain, 1e-5)


def test_state_space_sequences_of_bfloat16_numbers_are_near_those_of_float32():
    latent, action, seen, keep, _, groups, *weights = state_space(2, 6, 64, 16)
    with torch.no_grad():
        weights[-1][::6] += 8.0  # the same values come of either arithmetic
    leaves = [latent, seen, *weights]
    directions = [torch.randn(2, rows, 6 * 64) for rows in (32, 8, 24)] + [torch.zeros(2, 32, 64)]

    def run(function, dtype):
        return function(latent, action.to(dtype), seen.to(dtype), keep, None, groups, *weights)

    plain = results(lambda: run(state_space_sequence, torch.float32), leaves, directions)
    fast = results(lambda: run(fused.StateSpaceSequence.apply, torch.bfloat16), leaves, directions)
    for a, b in zip(fast[0] + fast[1], plain[0] + plain[1], strict=True):
        assert apart(a, b) < 0.05


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("steps", "n"), [(1, 32), (6, 48)])
def test_lstm_sequences_with_resets_inside(steps, n, sides, dtype):
    x = parameter(sides, 8, steps * n)
    weight = parameter(sides, 48, 20, scale=0.3)
    bias = parameter(sides, 48)
    hidden = 0.5 * torch.randn(sides, 12, n)
    cell = torch.randn(sides, 12, n)
    keep = (torch.rand(steps, n) < 0.7).float()
    assert (keep == 0).any(1).all()
    directions = [torch.randn(sides, 12, steps * n)]
    plain = results(lambda: lstm_sequence(x, weight, bias, hidden, cell, keep), (x, weight, bias), directions)
    fast = results(
        lambda: fused.LSTMSequence.apply(x.to(dtype), weight, bias, hidden, cell, keep), (x, weight, bias), directions
    )
    assert_alike(fast, plain, TOLERANCE[dtype])


def body_encoder(sides):
    """Return the encoder of a trunk and legs of which one reads fewer numbers, not as it starts."""
    mirror = Mirror((1, 0, 3, 2, 5, 4, 6, 7), (1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0)) if sides == 2 else None
    nodes = Node("trunk", (6, 7)), Node("leg", (0, 2, 4)), Node("leg", (4, 2, 0))
    encoder = BodyEncoder(Body(nodes, mirror), Reflection(8, mirror), NetworkCfg(heads=3, head_size=5))
    for x in (encoder.scale, encoder.shift):
        x.copy_(torch.randn_like(x))
    with torch.no_grad():
        encoder.bias.normal_()
    return encoder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("samples", [16, 144])
def test_attention_among_the_parts_of_a_body(samples, sides, dtype):
    encoder = body_encoder(sides)
    obs = torch.randn(samples, 8)
    directions = [torch.randn(sides, 3 * 3 * 5, samples)]
    plain = results(lambda: encoder(obs, torch.float32, False), list(encoder.parameters()), directions)
    assert_alike(
        results(lambda: encoder(obs, dtype, True), list(encoder.parameters()), directions), plain, TOLERANCE[dtype]
    )


# Heads


@pytest.mark.parametrize("samples", [16, 80])
@pytest.mark.parametrize("sides", [1, 2])
def test_policy_heads(sides, samples):
    hidden = parameter(sides, 12, samples)
    weight = parameter(sides, 6 // sides, 12)
    bias = parameter(6 // sides)
    columns = torch.tensor([4, 1, 2, 0, 5, 3], dtype=torch.int32)
    signs = torch.tensor([-1.0, 1, -1, 1, 1, -1])[: 6 // sides]
    directions = [torch.randn(samples, 6)]
    inputs = hidden, weight, bias
    fast, plain = (
        results(lambda f=f: f(*inputs, columns, signs), inputs, directions)
        for f in (fused.PolicyHead.apply, policy_head)
    )
    assert_alike(fast, plain, 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [1, 2])
def test_value_heads(sides, dtype):
    x = parameter(sides, 12, 96)
    weight = parameter(1, 12)
    bias = parameter(1)
    directions = [torch.randn(96)]
    fast, plain = (
        results(lambda f=f: f(x.to(dtype), weight, bias), (x, weight, bias), directions)
        for f in (fused.ValueHead.apply, value_head)
    )
    assert_alike(fast, plain, 1e-5 if dtype == torch.float32 else 0.005)


@pytest.mark.parametrize("sides", [1, 2])
def test_memory_may_lie_in_any_order(sides):
    def turned(*shape):
        return torch.randn(*reversed(shape)).permute(*reversed(range(len(shape)))).requires_grad_()

    x = turned(sides, 12, 96)
    weight = turned(sides, 48, 24)
    bias = turned(sides, 48)
    keep = turned(2, 48).detach().sign().clamp(min=0)
    hidden = turned(sides, 12, 48).detach()
    cell = turned(sides, 12, 48).detach()
    columns = torch.randperm(6).int()
    signs = torch.ones(6 // sides)
    encoder = body_encoder(sides)
    obs = turned(32, 8).detach()
    cases = (
        (fused.Dense.apply, dense, (x, turned(sides, 8, 12), turned(8)), ()),
        (fused.LSTMSequence.apply, lstm_sequence, (x, weight, bias), (hidden, cell, keep)),
        (fused.PolicyHead.apply, policy_head, (x, turned(sides, 6 // sides, 12), turned(6 // sides)), (columns, signs)),
        (fused.ValueHead.apply, value_head, (x, turned(1, 12), turned(1)), ()),
    )
    one = [torch.tensor(1.0)]  # a gradient that is one number everywhere
    for fast, plain, inputs, given in cases:
        assert_alike(
            *(results(lambda f=f, inputs=inputs, given=given: f(*inputs, *given), inputs, one) for f in (fast, plain)),
            1e-5,
        )
    parameters = list(encoder.parameters())
    assert_alike(
        *(
            results(lambda compiled=compiled: encoder(obs, torch.float32, compiled), parameters, one)
            for compiled in (True, False)
        ),
        1e-5,
    )


# Losses


@pytest.mark.parametrize("strided", [False, True])
def test_policy_losses(strided):
    mean = parameter(5, 40, 7, scale=0.3)
    std = torch.rand(7).add(0.3).requires_grad_()
    old_mean = mean.detach() + 0.1 * torch.randn(5, 40, 7)
    old_std = std.detach() * torch.linspace(0.9, 1.1, 7)
    action = old_mean + old_std * torch.randn(5, 40, 7)
    advantage = torch.randn(5, 40)
    some = slice(3, 36) if strided else slice(None)

    def loss(f):
        return f(mean[:, some], std, action[:, some], old_mean[:, some], old_std, advantage[:, some], 0.2)

    fast, plain = (
        results(lambda f=f: loss(f), (mean, std), [torch.tensor(1.7)]) for f in (ppo.policy_loss, ppo.plain_policy_loss)
    )
    assert 0.2 < plain[0][1] < 0.8
    assert_alike(fast, plain, 2e-5)


@pytest.mark.parametrize("function", [ppo.policy_loss, ppo.plain_policy_loss])
@pytest.mark.parametrize("broken", ["mean", "advantage"])
def test_what_is_not_a_number_shows_in_the_gradient(broken, function):
    values = {"mean": torch.zeros(2, 3, 4), "advantage": torch.ones(2, 3)}
    values[broken][1, 2] = np.nan
    mean = values["mean"].requires_grad_()
    std = torch.ones(4, requires_grad=True)
    function(mean, std, torch.randn(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(4), values["advantage"], 0.2)[
        0
    ].backward()
    assert mean.grad[1, 2].isnan().all()
    assert std.grad.isnan().all()
