"""Belief: compiled code against plain PyTorch, memory and resets, mirror images."""

import copy
from collections import namedtuple

import numpy as np
import pytest
import torch

from config import Config, NetworkCfg, TrainCfg, WorldModelCfg
from entity import (
    BodyEncoder,
    Creature,
    EntityBelief,
    Normaliser,
    Reflection,
    change_over,
    graph_attention,
)
from environments import registry
from environments.contracts import Body, Mirror, Node
from settings import ConfigError, override
from training import ppo

CPU = torch.device("cpu")
SMALL = NetworkCfg(heads=2, head_size=8, encoder=16, lstm=24, critic=16)
BODY = registry.make("quadruped-balance", num_envs=1, threads=1).body
SIZES = 37, 12, 37  # observations, actions, privileged
World = namedtuple("World", "body num_obs num_actions num_privileged")
VARIANTS = [
    {"network.attention": attention, "network.recurrent": recurrent, "network.symmetric": symmetric}
    for attention in (True, False)
    for recurrent in (True, False)
    for symmetric in (True, False)
]
pytestmark = pytest.mark.usefixtures("seeded")


def belief(changes=None, body=BODY, sizes=SIZES):
    """Return a belief with parameters and scales that matter everywhere."""
    made = EntityBelief(World(body, *sizes), override(Config(network=SMALL), changes or {}).network)
    with torch.no_grad():
        made.policy.normal_(0, 0.3)
        for name, p in made.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.2)
    made.observe(0.3 + 2 * torch.randn(500, sizes[0]), 3 * torch.randn(500, sizes[2]))
    return made


def sequence(steps=6, n=10, num_obs=37, starts=0.2):
    return torch.randn(steps, n, num_obs), (torch.rand(steps, n) < starts).float()


def some_state(model, n):
    return tuple(size * torch.randn_like(x) for size, x in zip((0.5, 1.0), model.initial_state(n), strict=False))


def apart(a, b):
    """Return the distance of two tensors relative to the second's size."""
    return float((a.float() - b.float()).norm() / (b.float().norm() + 1e-12))


def outputs_and_gradients(model, obs, privileged, state, starts, weights):
    """Return means, values and state, and the gradients by name."""
    model.zero_grad(set_to_none=True)
    mean, after = model.evaluate(obs, state, starts)
    value = model.value(obs, privileged)
    ((mean * weights).sum() + (value * weights[..., 0]).sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    state = dict(zip(model.state_names, after, strict=True))
    return {"mean": mean.detach(), "value": value.detach()} | state, gradients


def assert_compiled_equals_plain(model, tolerance, n=10, steps=6, sizes=SIZES):
    obs, starts = sequence(steps, n, sizes[0])
    given = obs, torch.randn(steps, n, sizes[2]), some_state(model, n), starts, torch.randn(steps, n, sizes[1])
    assert model.compiled(obs)
    fast = outputs_and_gradients(model, *given)
    model.use_fused = False
    plain = outputs_and_gradients(model, *given)
    assert set(fast[1]) == set(plain[1]) == {name for name, _ in model.named_parameters()} - {"log_std"}
    for a, b in zip(fast, plain, strict=True):
        for name, x in b.items():
            assert x.norm() > 0 or name == "body_encoder.attention", name
            assert apart(a[name], x) < tolerance, name


# Compiled and plain


@pytest.mark.parametrize(
    "changes", VARIANTS, ids=lambda v: " ".join(name.split(".")[1] for name, on in v.items() if on)
)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-5), ("bfloat16", 0.04)])
def test_compiled_belief_equals_plain_pytorch(precision, tolerance, changes):
    model = belief(changes)
    model.dtype = getattr(torch, precision)
    assert_compiled_equals_plain(model, tolerance)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 70])
def test_any_number_of_robots_is_computed_alike(n):
    assert_compiled_equals_plain(belief(), 2e-5, n, steps=3)


def test_bfloat16_is_close_to_float32():
    model = belief()
    obs, starts = sequence(n=40)
    state = some_state(model, 40)
    privileged = torch.randn(6, 40, 37)
    weights = torch.randn(6, 40, 12)
    exact = outputs_and_gradients(model, obs, privileged, state, starts, weights)
    model.dtype = torch.bfloat16
    rounded = outputs_and_gradients(model, obs, privileged, state, starts, weights)
    for a, b in zip(rounded, exact, strict=True):
        assert all(
            0 < apart(a[name], b[name]) < 0.04 for name in b if not (name.startswith("policy") or "value_bias" in name)
        )


@pytest.mark.parametrize(
    "changes",
    [{"network.encoder": 100, "network.lstm": 42, "network.critic": 30}, {"network.heads": 1, "network.head_size": 3}],
)
def test_sizes_that_compiled_code_does_not_take_are_computed_all_the_same(changes):
    model = belief(changes)
    obs, starts = sequence(4, 5)
    assert not model.compiled(obs)
    mean, after = model.evaluate(obs, some_state(model, 5), starts)
    value = model.value(obs, torch.randn(4, 5, 37))
    (mean.sum() + value.sum()).backward()
    assert mean.shape == (4, 5, 12)
    assert value.shape == (4, 5)
    assert [x.shape for x in after] == [(2, model.cfg.lstm // 2, 5)] * 2
    assert all(torch.isfinite(p.grad).all() for name, p in model.named_parameters() if name != "log_std")


@pytest.mark.parametrize("name", ["encoder", "lstm", "critic"])
def test_two_sides_share_even_numbers_of_features(name):
    with pytest.raises(ConfigError, match=f"network.{name}: expected an even number, got 33"):
        belief({f"network.{name}": 33})
    assert belief({f"network.{name}": 33, "network.symmetric": False}).sides == 1


# Memory


@pytest.mark.parametrize("use_fused", [True, False])
def test_a_reset_inside_a_sequence_starts_a_new_one(use_fused):
    model = belief()
    model.use_fused = use_fused
    obs, _ = sequence(7, 5)
    starts = torch.zeros(7, 5)
    starts[3] = 1
    weights = torch.randn(7, 5, 12)
    privileged = torch.randn(7, 5, 37)
    state = some_state(model, 5)
    whole, gradients = outputs_and_gradients(model, obs, privileged, state, starts, weights)
    first, gradients_a = outputs_and_gradients(model, obs[:3], privileged[:3], state, starts[:3], weights[:3])
    second, gradients_b = outputs_and_gradients(
        model, obs[3:], privileged[3:], model.initial_state(5), None, weights[3:]
    )
    torch.testing.assert_close(whole["mean"], torch.cat((first["mean"], second["mean"])))
    torch.testing.assert_close(whole["hidden"], second["hidden"])
    torch.testing.assert_close(whole["cell"], second["cell"])
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients_a[name] + gradients_b[name], rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("use_fused", [True, False])
def test_memory_carries_over_and_steps_equal_a_sequence(use_fused):
    model = belief()
    model.use_fused = use_fused
    obs, starts = sequence(8, 5)
    assert starts[1:].any()
    state = some_state(model, 5)
    whole, after = model.evaluate(obs, state, starts)
    means = []
    memory = state
    for t in range(8):
        action, mean, memory = model.act(obs[t], memory, starts[t])
        assert torch.equal(action, mean)
        means.append(mean)
    torch.testing.assert_close(torch.stack(means), whole.detach(), rtol=1e-5, atol=1e-5)
    for a, b in zip(memory, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    forgetful = model.act(obs[-1], model.initial_state(5))[1]
    assert not torch.allclose(forgetful, means[-1], atol=1e-3)


def test_without_memory_the_past_does_not_matter():
    model = belief({"network.recurrent": False})
    obs, _ = sequence(3, 5)
    whole, after = model.evaluate(obs, model.initial_state(5))
    torch.testing.assert_close(whole[2], model.act(obs[2], ())[1], rtol=1e-5, atol=1e-5)
    assert after == ()


def test_actions_are_means_and_noise():
    model = belief()
    obs = torch.randn(5, 37)
    noise = torch.randn(5, 12)
    action, mean, _ = model.act(obs, model.initial_state(5), noise=noise)
    torch.testing.assert_close(action, mean + model.std().detach() * noise)


# Mirror images


def reflected(mirror, x):
    return x[..., list(mirror.columns)] * torch.tensor(mirror.signs)


@pytest.mark.parametrize("use_fused", [True, False])
@pytest.mark.parametrize("changes", [v for v in VARIANTS if v["network.symmetric"]])
def test_the_mirror_image_of_a_creature_meets_that_of_a_situation_with_that_of_an_action(changes, use_fused):
    model = belief(changes)
    model.use_fused = use_fused
    obs, starts = sequence(4, 7)
    privileged = torch.randn(4, 7, 37)
    state = some_state(model, 7)
    mean, after = model.evaluate(obs, state, starts)
    other = ()
    if model.cfg.recurrent:
        hidden, cell = state
        other = hidden * torch.tensor([1.0, -1.0])[:, None, None], cell.flip(0)
    twin = copy.deepcopy(model)
    if model.cfg.recurrent:
        twin.lstm_bias.data = model.lstm_bias.data.flip(0)
    mirrored, mirrored_after = twin.evaluate(reflected(BODY.obs, obs), other, starts)
    torch.testing.assert_close(mirrored, reflected(BODY.actions, mean), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mirrored, mean, atol=0.01)
    if model.cfg.recurrent:
        torch.testing.assert_close(change_over(mirrored_after[0]), change_over(after[0]).flip(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mirrored_after[1], after[1].flip(0), rtol=1e-4, atol=1e-5)
    values = model.value(obs, privileged), model.value(reflected(BODY.obs, obs), reflected(BODY.privileged, privileged))
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    assert values[0].std() > 0.01
    std = model.std().detach()
    torch.testing.assert_close(std, std[list(BODY.actions.columns)])


@pytest.mark.parametrize(
    "changes", VARIANTS, ids=lambda v: " ".join(name.split(".")[1] for name, on in v.items() if on)
)
def test_every_observation_counts(changes):
    model = belief(changes)
    seen = torch.randn(74) + torch.cat((torch.zeros(1, 74), torch.eye(74)))  # observations, privileged ones behind
    with torch.no_grad():
        mean = model.act(seen[:38, :37], model.initial_state(38))[1]
        value = model.value(seen[:, :37], seen[:, 37:])
    assert ((mean[1:] - mean[0]).abs().amax(1) > 1e-6).all()
    assert ((value[1:] - value[0]).abs() > 1e-6).all()


def test_what_is_not_symmetric_may_act_otherwise_in_the_mirror():
    model = belief({"network.symmetric": False})
    obs = torch.randn(9, 37)
    state = model.initial_state(9)
    mean, mirrored = (model.act(x, state)[1] for x in (obs, reflected(BODY.obs, obs)))
    assert not torch.allclose(mirrored, reflected(BODY.actions, mean), atol=0.01)


def test_the_policy_sees_no_privileged_observation():
    model = belief()
    model.evaluate(*sequence()[:1], model.initial_state(10))[0].sum().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith("value"))
    obs = torch.randn(7, 37)
    privileged = torch.randn(7, 37)
    assert not torch.allclose(model.value(obs, privileged), model.value(obs, privileged + 1))


# Scales


def test_the_normaliser_knows_mean_and_variance_of_all_observations_and_their_mirror_images():
    reflection = Reflection(37, BODY.obs)
    normaliser = Normaliser(reflection)
    parts = [
        offset + scale * torch.randn(n, 37)
        for offset, scale, n in ((0.0, 1.0, 50), (4.0, 0.1, 200), (-1.0, 3.0, 7), (0.0, 0.0, 1))
    ]
    for part in parts:
        normaliser.update(part)
    x = torch.cat(parts).double()
    x = torch.cat((x, reflected(BODY.obs, x))).numpy()
    np.testing.assert_allclose(normaliser.mean, x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normaliser.variance, x.var(0), rtol=1e-4)
    np.testing.assert_allclose(normaliser.scale, 1 / np.maximum(x.std(0), 0.5), rtol=1e-4)
    assert normaliser.count == len(x)
    torch.testing.assert_close(reflection(normaliser.mean), normaliser.mean)
    torch.testing.assert_close(normaliser.variance[reflection.columns], normaliser.variance)


def test_what_hardly_varies_is_not_blown_up():
    normaliser = Normaliser(Reflection(3, None))
    normaliser.update(torch.tensor([5.0, 0.0, 0.0]) + torch.tensor([1e-3, 0.0, 4.0]) * torch.randn(1000, 3))
    assert normaliser.scale.max() <= 2
    np.testing.assert_allclose(normaliser.scale, [2, 2, 0.25], rtol=0.1)


@pytest.mark.parametrize("changes", [{}, {"network.attention": False}])
def test_what_has_been_observed_changes_what_the_networks_see(changes):
    model = belief(changes)
    obs = torch.randn(5, 37)
    privileged = torch.randn(5, 37)

    def outcomes():
        return model.act(obs, model.initial_state(5))[1], model.value(obs, privileged).detach()

    before = outcomes()
    model.observe(10 * torch.randn(1000, 37) + 3, 10 * torch.randn(1000, 37))
    for was, now in zip(before, outcomes(), strict=True):
        assert not torch.allclose(was, now, atol=1e-3)
    if model.body_encoder:
        encoder = model.body_encoder
        seen = obs[:, encoder.columns.long()] * encoder.scale + encoder.shift
        x = (obs - model.normaliser.mean[:37]) * model.normaliser.scale[:37]
        torch.testing.assert_close(seen, x[:, encoder.columns.long()] * encoder.signs, rtol=1e-4, atol=1e-4)


# Body


def test_attention_by_hand():
    encoder = BodyEncoder(
        Body((Node("a", (0, 1)), Node("b", (2,)))), Reflection(3, None), NetworkCfg(heads=1, head_size=3)
    )
    with torch.no_grad():
        encoder.bias.normal_()
    obs = torch.randn(16, 3)
    expected = []
    for seen in obs:
        x = [seen[:2], torch.tensor([seen[2], 0.0])]
        both = [encoder.weight[node, 0] @ x[node] + encoder.bias[node, 0] for node in range(2)]
        left = [b[:3] for b in both]
        right = [b[3:] for b in both]
        rows = []
        for i in range(2):
            scores = torch.stack(
                [encoder.attention[0] @ torch.nn.functional.leaky_relu(left[i] + right[j], 0.2) for j in range(2)]
            )
            alpha = scores.exp() / scores.exp().sum()
            rows.append(left[i] + alpha[0] * right[0] + alpha[1] * right[1])
        expected.append(torch.cat(rows))
    for use_fused in (True, False):
        torch.testing.assert_close(
            encoder(obs, torch.float32, use_fused)[0].T, torch.stack(expected), rtol=1e-5, atol=1e-6
        )


def test_attention_of_equal_scores_is_a_mean():
    left = torch.randn(4, 3, 2, 5)
    right = torch.randn(4, 3, 2, 5)
    torch.testing.assert_close(graph_attention(left, right, torch.zeros(2, 5)), left + right.mean(1, keepdim=True))
    # one that outweighs all others
    right[:, 1] += 1e4
    torch.testing.assert_close(graph_attention(left, right, torch.ones(2, 5)), left + right[:, 1:2])


def test_legs_share_weights_and_a_right_leg_is_a_left_leg_in_the_mirror():
    encoder = BodyEncoder(BODY, Reflection(37, BODY.obs), SMALL)
    assert encoder.weight.shape[0] == 2
    with torch.no_grad():
        encoder.bias[1:] = 0.3  # the places of legs are told apart by it alone
    obs = torch.randn(16, 37)
    swapped = obs.clone()
    for start, size in ((0, 3), (12, 3), (24, 1)):  # front and rear legs
        legs = obs[:, start : start + 4 * size].unflatten(1, (4, size))
        swapped[:, start : start + 4 * size] = legs[:, [2, 3, 0, 1]].flatten(1)
    for use_fused in (True, False):
        seen, other, mirrored = (
            encoder(x, torch.float32, use_fused).unflatten(1, (3, -1)) for x in (obs, swapped, reflected(BODY.obs, obs))
        )
        torch.testing.assert_close(other[:, [0, 2, 1]], seen, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            mirrored, seen * torch.tensor([1.0, -1.0])[:, None, None, None], rtol=1e-4, atol=1e-5
        )
        assert not torch.allclose(seen[:, 1], seen[:, 2], atol=1e-3)


@pytest.mark.parametrize("mirror", [None, Mirror((0, 1, 2, 3), (1.0, -1.0, 1.0, -1.0))])
def test_a_body_of_one_part(mirror):
    body = Body((Node("ball", (0, 1, 2, 3)),), mirror, mirror and Mirror((), ()), mirror and Mirror((1, 0), (1.0, 1.0)))
    sizes = 4, 2, 0
    model = belief(body=body, sizes=sizes)
    assert model.sides == (2 if mirror else 1)
    if not mirror:
        encoder = model.body_encoder
        obs = torch.randn(3, 4)
        left, right = (
            torch.einsum("sk,hfk->shf", obs * encoder.scale[0] + encoder.shift[0], encoder.weight[0]) + encoder.bias[0]
        ).chunk(2, dim=-1)
        torch.testing.assert_close(encoder(obs, torch.float32, False)[0].T, (left + right).flatten(1))
    assert_compiled_equals_plain(model, 2e-5, sizes=sizes)


def test_any_body_without_a_mirror_image():
    body = Body((Node("wheel", (0, 1, 2)), Node("wheel", (3, 4, 5)), Node("cart", (6,))))
    sizes = 7, 3, 2
    assert_compiled_equals_plain(belief({"network.head_size": 4}, body=body, sizes=sizes), 2e-5, sizes=sizes)


# Standard deviation


@pytest.mark.parametrize("extreme", [1e6, -1e6])
def test_the_standard_deviation_stays_positive_and_finite(extreme):
    model = belief()
    with torch.no_grad():
        model.log_std.fill_(extreme)
    std = model.std()
    assert torch.isfinite(std).all()
    expected = 10.0 if extreme > 0 else SMALL.min_std
    torch.testing.assert_close(std.detach(), torch.full((12,), expected))
    log_prob = ppo.gaussian_log_prob(torch.randn(5, 12), torch.randn(5, 12), std)
    (log_prob.sum() + ppo.entropy(std)).backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(model.log_std.grad).all()


def test_the_standard_deviation_starts_as_configured_and_actions_near_zero():
    model = EntityBelief(World(BODY, *SIZES), override(Config(network=SMALL), {"network.initial_std": 0.7}).network)
    torch.testing.assert_close(model.std().detach(), torch.full((12,), 0.7))
    assert model.evaluate(*sequence()[:1], model.initial_state(10))[0].abs().max() < 0.1


def test_creature_has_a_world_model_only_when_asked():
    env = registry.make("quadruped-balance", num_envs=1, threads=1)
    assert Creature(env, SMALL, WorldModelCfg()).world_model is None
    assert Creature(env, SMALL, WorldModelCfg(role="imagination")).world_model is not None
    assert np.isfinite(sum(float(p.detach().sum()) for p in Creature(env, NetworkCfg(), WorldModelCfg()).parameters()))
    assert TrainCfg().precision == "auto"
