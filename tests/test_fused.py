"""Compiled layers, heads and losses against the same equations in plain PyTorch."""

import numpy as np
import pytest
import torch

import fused
from config import NetworkCfg
from entity import BodyEncoder, Reflection, dense, lstm_sequence, policy_head, value_head
from environments.contracts import Body, Mirror, Node
from observation import Features, Normaliser
from training import ppo
from world_model import linear, normed, state_space_sequence

# Every pair is a kernel of its own, which takes seconds to compile: each of either once
KINDS = pytest.mark.parametrize(("sides", "dtype"), [(2, torch.float32), (1, torch.bfloat16)])
pytestmark = pytest.mark.usefixtures("seeded")


def apart(a, b):
    """Return the distance of two tensors relative to the second's size."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12))


def parameter(*shape, scale=1.0):
    return (scale * torch.randn(shape)).requires_grad_()


def results(function, inputs, directions):
    """Return a function's outputs, and gradients, of inputs that have one, of their products with directions."""
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


# Layers

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


@KINDS
def test_an_input_that_both_sides_share(sides, dtype):
    x = parameter(12, 64)
    weight = parameter(sides, 8, 12, scale=0.4)
    bias = parameter(8)
    directions = [torch.randn(sides, 8, 64)]
    shared = x.expand(sides, -1, -1)
    plain = results(lambda: dense(shared, weight, bias), (x, weight, bias), directions)
    fast = results(
        lambda: fused.Dense.apply(x.to(dtype).expand(sides, -1, -1), weight, bias), (x, weight, bias), directions
    )
    assert_alike(fast, plain, TOLERANCE[dtype])


@KINDS
@pytest.mark.parametrize("which", [None, (5, 2, 3, 6)])
@pytest.mark.parametrize("samples", [64, 50])
def test_weights_of_what_is_observed_are_those_of_its_sums_and_differences(samples, which, sides, dtype):
    mirror = {
        None: Mirror((1, 0, 2, 3, 4, 6, 5), (1, 1, -1, 1, 1, -1, -1)),
        (5, 2, 3, 6): Mirror((3, 1, 2, 0), (1, -1, 1, 1)),
    }
    features = Features(Reflection(len(which or range(7)), mirror[which] if sides == 2 else None), which)
    weight = parameter(sides, 8, features.rows)
    bias = parameter(8)
    x = 3.0 * torch.randn(samples, 9) + 1.0
    normaliser = Normaliser(Reflection(9, None))
    normaliser.update(x + 0.3)
    columns = slice(7) if which is None else list(which)
    standardised = (x[:, columns] - normaliser.mean[columns]) * normaliser.scale[columns]
    directions = [torch.randn(sides, 8, samples)]
    wanted = results(
        lambda: dense(features.columns(standardised, torch.float32), weight, bias), (weight, bias), directions
    )

    for compiled in (True, False):
        seen = features(x, normaliser, dtype, compiled)
        assert seen.shape == (fused.filled(features.size), samples)
        assert not seen[features.size :].any()
        found = results(
            lambda: dense(seen.float().expand(sides, -1, -1), features.weights(weight, compiled), bias),  # noqa: B023
            (weight, bias),
            directions,
        )
        assert_alike(found, wanted, TOLERANCE[dtype])


@KINDS
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


@KINDS
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


@pytest.mark.parametrize(("sides", "evidence"), [(2, 0), (1, 16)])
@pytest.mark.parametrize(("steps", "n"), [(1, 32), (6, 96)])
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


@KINDS
@pytest.mark.parametrize(("steps", "n"), [(1, 32), (6, 48)])
def test_lstm_sequences_with_resets_inside(steps, n, sides, dtype):
    x = parameter(sides, 8, steps * n)
    weight = parameter(sides, 48, 20, scale=0.3)
    bias = parameter(sides, 48)
    hidden = 0.5 * torch.randn(sides, 12, n)
    cell = torch.randn(sides, 12, n)
    starts = (torch.rand(steps, n) < 0.3).float()
    assert starts.any(1).all()
    directions = [torch.randn(sides, 12, steps * n)]
    plain = results(lambda: lstm_sequence(x, weight, bias, hidden, cell, starts), (x, weight, bias), directions)
    fast = results(
        lambda: fused.LSTMSequence.apply(x.to(dtype), weight, bias, hidden, cell, starts), (x, weight, bias), directions
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


@KINDS
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


@KINDS
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
    starts = turned(2, 48).detach().sign().clamp(min=0)
    hidden = turned(sides, 12, 48).detach()
    cell = turned(sides, 12, 48).detach()
    columns = torch.randperm(6).int()
    signs = torch.ones(6 // sides)
    encoder = body_encoder(sides)
    obs = turned(32, 8).detach()
    cases = (
        (fused.Dense.apply, dense, (x, turned(sides, 8, 12), turned(8)), ()),
        (fused.LSTMSequence.apply, lstm_sequence, (x, weight, bias), (hidden, cell, starts)),
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


@pytest.mark.parametrize("width", [1, 5, fused.WIDTH, 37, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_columns_of_observations_are_standardised(width, dtype):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3 * fused.WIDTH, width, generator=random)
    columns = torch.randint(width, (9,), generator=random)
    mean, scale = torch.randn(width, generator=random), torch.rand(width, generator=random)
    found = fused.standardised(x, columns, mean, scale, 2, dtype)
    expected = ((x - mean) * scale)[:, columns].T.to(dtype)
    torch.testing.assert_close(found[:9], expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
    assert found.shape == (11, len(x))
    assert not found[9:].any()
