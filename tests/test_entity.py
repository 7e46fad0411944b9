"""Belief and world model: compiled code against plain PyTorch, memory and resets, mirrored legs."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import fused
from config import Config, NetworkCfg, TrainCfg, WorldModelCfg, override
from entity import BeliefState, BodyEncoder, Creature, EntityBelief, WorldModel
from environments import registry
from environments.contracts import Body, Node
from training import ppo
from training.engine import TrainingEngine
from training.world_model import world_model_loss

CPU = torch.device("cpu")
SMALL = NetworkCfg(heads=2, head_size=8, encoder=16, lstm=24, critic=16)
BODY = registry.make("quadruped-balance", 1, threads=1).body
SIZES = 37, 12, 16  # observations, actions, privileged


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def belief(cfg=SMALL, body=BODY, num_obs=37):
    made = EntityBelief(body, num_obs, 12, 16, cfg)
    with torch.no_grad():  # gradients that matter everywhere
        made.policy_head.weight.normal_(0, 0.3)
        for p in (made.body_encoder.bias, made.lstm_input.bias):
            p.normal_(0, 0.2)
    return made


def sequence(steps=6, n=10, num_obs=37, starts=0.2):
    return torch.randn(steps, n, num_obs), (torch.rand(steps, n) < starts).float()


def some_state(model, n):
    return BeliefState(0.5 * torch.randn(n, model.cfg.lstm), torch.randn(n, model.cfg.lstm))


def apart(a, b):
    """Return the distance of two tensors relative to the second's size."""
    return float((a.float() - b.float()).norm() / (b.float().norm() + 1e-12))


def outputs_and_gradients(model, obs, state, starts, weights):
    model.zero_grad(set_to_none=True)
    mean, after = model(obs, state, starts)
    (mean * weights).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return mean.detach(), after, gradients


@pytest.mark.parametrize("n", [10, 200])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_compiled_belief_equals_plain_pytorch(precision, tolerance, threads, n):
    model = belief()
    model.dtype = getattr(torch, precision)
    obs, starts = sequence(n=n)
    state, weights = some_state(model, n), torch.randn(6, n, 12)
    before = torch.get_num_threads()
    fused.set_threads(threads)
    try:
        fast = outputs_and_gradients(model, obs, state, starts, weights)
        model.use_fused = False
        plain = outputs_and_gradients(model, obs, state, starts, weights)
    finally:
        fused.set_threads(before)
    assert apart(fast[0], plain[0]) < tolerance
    assert apart(fast[1].hidden, plain[1].hidden) < tolerance
    assert apart(fast[1].cell, plain[1].cell) < tolerance
    assert set(fast[2]) == set(plain[2])
    assert {"body_encoder.attention", "body_encoder.weight", "body_encoder.bias", "lstm_hidden.weight", "lstm_input.weight", "encoder.weight"} <= set(fast[2])
    for name, gradient in plain[2].items():
        assert gradient.norm() > 0
        assert apart(fast[2][name], gradient) < tolerance, name


def test_gradients_are_those_of_finite_differences():
    model = belief()
    obs, starts = sequence(4, 3)
    state, weights = some_state(model, 3), torch.randn(4, 3, 12)
    gradients = outputs_and_gradients(model, obs, state, starts, weights)[2]
    for name in ("body_encoder.weight", "body_encoder.attention", "lstm_hidden.weight"):
        p = dict(model.named_parameters())[name]
        direction = torch.randn_like(p)
        step = 1e-2 / direction.norm()
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                p += sign * step * direction
                values.append((model(obs, state, starts)[0].double() * weights).sum())
                p -= sign * step * direction
        slope = float((values[0] - values[1]) / (2 * step))
        assert slope == pytest.approx(float((gradients[name] * direction).sum()), rel=0.02, abs=1e-3), name


@pytest.mark.parametrize("use_fused", [True, False])
def test_a_reset_inside_a_sequence_starts_a_new_one(use_fused):
    model = belief()
    model.use_fused = use_fused
    obs, _ = sequence(7, 5)
    starts = torch.zeros(7, 5)
    starts[3] = 1
    weights = torch.randn(7, 5, 12)
    state = some_state(model, 5)
    whole, after, gradients = outputs_and_gradients(model, obs, state, starts, weights)
    first, _, gradients_a = outputs_and_gradients(model, obs[:3], state, starts[:3], weights[:3])
    second, after_second, gradients_b = outputs_and_gradients(model, obs[3:], model.initial_state(5), None, weights[3:])
    torch.testing.assert_close(whole, torch.cat((first, second)))
    torch.testing.assert_close(after.hidden, after_second.hidden)
    torch.testing.assert_close(after.cell, after_second.cell)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients_a[name] + gradients_b[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_fused", [True, False])
def test_memory_carries_over_and_steps_equal_a_sequence(use_fused):
    model = belief()
    model.use_fused = use_fused
    obs, starts = sequence(8, 5)
    state = some_state(model, 5)
    whole, after = model(obs, state, starts)
    means, memory = [], state
    for t in range(8):
        action, mean, memory = model.act(obs[t], memory, starts[t])
        assert torch.equal(action, mean)
        means.append(mean)
    torch.testing.assert_close(torch.stack(means), whole.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(memory.cell, after.cell, rtol=1e-5, atol=1e-5)
    forgetful = model.act(obs[-1], model.initial_state(5))[1]
    assert not torch.allclose(forgetful, means[-1], atol=1e-3)


def training_engine(n=96, **changes):
    cfg = override(Config(network=SMALL), {"env.episode_seconds": 0.5, "ppo.rollout": 20, **changes})
    env = registry.make(cfg.task, n, cfg=cfg.env, threads=1)
    return TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, CPU)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_replayed_log_probabilities_equal_the_collected_ones(precision, tolerance):
    engine = training_engine()
    engine.creature.use_precision(precision)
    with torch.no_grad():
        engine.belief.policy_head.weight.normal_(0, 0.3)
    for _ in range(3):
        r = engine.collect_trajectory()
        assert r.terminated.any() or r.truncated.any()
        assert r.starts[1:].any()
        mean, after = engine.belief(r.obs[:-1], r.state, r.starts[:-1])
        collected = ppo.gaussian_log_prob(r.action, r.mean, r.std)
        replayed = ppo.gaussian_log_prob(r.action, mean, engine.belief.std())
        assert (replayed - collected).abs().max() < tolerance * 10
        assert (replayed - collected).abs().mean() < tolerance
        torch.testing.assert_close(after.cell, engine.memory.cell, rtol=tolerance, atol=tolerance)
    forgotten = engine.belief(r.obs[:-1], r.state, torch.zeros_like(r.starts[:-1]))[0]
    assert (ppo.gaussian_log_prob(r.action, forgotten, r.std) - collected).abs().max() > 0.05
    assert r.truncated.any()


def test_actions_are_means_and_noise():
    engine = training_engine(n=32)
    r = engine.collect_trajectory()
    torch.testing.assert_close(r.action, r.mean + r.std * r.noise)
    noise = r.noise.flatten()
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    # every robot and step has its own
    assert len(torch.unique(r.noise.flatten(0, 1), dim=0)) == 20 * 32


# Body


def test_a_right_leg_is_a_left_leg_in_the_mirror():
    encoder = BodyEncoder(BODY, SMALL)
    with torch.no_grad():
        encoder.bias[1:] = encoder.bias[1].clone()  # the places of legs are told apart by it alone
    obs = torch.randn(4, 37)
    mirrored = obs.clone()
    legs = [1, 0, 3, 2]
    sides = torch.tensor([-1.0, 1, 1]).repeat(4)
    for start in (0, 12):
        mirrored[:, start : start + 12] = obs[:, start : start + 12].unflatten(1, (4, 3))[:, legs].flatten(1) * sides
    mirrored[:, 24:28] = obs[:, 24:28][:, legs]
    for use_fused in (True, False):
        seen = encoder(obs, torch.float32, use_fused).unflatten(-1, (5, encoder.width))
        other = encoder(mirrored, torch.float32, use_fused).unflatten(-1, (5, encoder.width))
        torch.testing.assert_close(other[:, 1:], seen[:, 1:][:, legs], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other[:, 0], seen[:, 0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(seen[:, 1], seen[:, 2], atol=1e-3)


def test_attention_by_hand():
    encoder = BodyEncoder(Body((Node("a", (0, 1), (1.0, 1.0)), Node("b", (2,), (-1.0,)))), NetworkCfg(heads=1, head_size=3))
    with torch.no_grad():
        encoder.bias.normal_()
    obs = torch.randn(1, 3)
    x = [torch.tensor([obs[0, 0], obs[0, 1]]), torch.tensor([-obs[0, 2], 0.0])]
    left, right = [], []
    for node in range(2):
        both = x[node] @ encoder.weight[node] + encoder.bias[node]
        left.append(both[:3])
        right.append(both[3:])
    expected = []
    for i in range(2):
        scores = torch.stack([encoder.attention[0] @ torch.nn.functional.leaky_relu(left[i] + right[j], 0.2) for j in range(2)])
        alpha = scores.exp() / scores.exp().sum()
        expected.append(alpha[0] * right[0] + alpha[1] * right[1])
    for use_fused in (True, False):
        torch.testing.assert_close(encoder(obs, torch.float32, use_fused)[0], torch.cat(expected), rtol=1e-5, atol=1e-6)


def test_a_body_of_one_part_is_a_linear_map():
    body = Body((Node("ball", (0, 1, 2, 3), (1.0, -1.0, 1.0, 1.0)),))
    model = belief(body=body, num_obs=4)
    encoder = model.body_encoder
    assert not hasattr(encoder, "attention")
    obs = torch.randn(3, 2, 4)
    expected = (obs * torch.tensor([1.0, -1, 1, 1])) @ encoder.weight[0] + encoder.bias[0]
    torch.testing.assert_close(encoder(obs, torch.float32, True), expected)
    fast = outputs_and_gradients(model, obs, model.initial_state(2), None, torch.ones(3, 2, 12))
    model.use_fused = False
    plain = outputs_and_gradients(model, obs, model.initial_state(2), None, torch.ones(3, 2, 12))
    assert apart(fast[0], plain[0]) < 1e-5
    for name, gradient in plain[2].items():
        assert apart(fast[2][name], gradient) < 1e-4, name


def test_the_policy_sees_no_privileged_observation():
    model = belief()
    model(*sequence()[:1], model.initial_state(10))[0].sum().backward()
    assert all(p.grad is None for p in model.value_head.parameters())
    obs, privileged = torch.randn(7, 37), torch.randn(7, 16)
    assert model.value(obs, privileged).shape == (7,)
    assert not torch.allclose(model.value(obs, privileged), model.value(obs, privileged + 1))


# Spread


@pytest.mark.parametrize("extreme", [1e6, -1e6])
def test_spread_stays_positive_and_finite(extreme):
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


def test_spread_starts_as_configured_and_actions_near_zero():
    model = EntityBelief(BODY, *SIZES, dataclasses.replace(SMALL, initial_std=0.7))
    torch.testing.assert_close(model.std().detach(), torch.full((12,), 0.7))
    assert model(*sequence()[:1], model.initial_state(10))[0].abs().max() < 0.1


# World model


def test_world_model_shapes():
    cfg = WorldModelCfg(latent=8, hidden=16)
    model = WorldModel(37, 12, cfg)
    obs, action = torch.randn(5, 37), torch.randn(5, 12)
    out = model(obs, action)
    shapes = {"latent": (5, 8), "reconstruction": (5, 37), "next_latent": (5, 8), "next_obs": (5, 37), "reward": (5,), "done": (5,)}
    assert {name: tuple(x.shape) for name, x in out.items()} == shapes
    torch.testing.assert_close(out["next_latent"], model.predict_next(model.encode(obs), action))
    torch.testing.assert_close(out["next_obs"], model.decode(out["next_latent"]))
    torch.testing.assert_close(out["reward"], model.predict_reward(out["latent"], action))
    assert out["latent"].abs().max() <= 1


def test_world_model_learns_a_fixed_batch():
    model = WorldModel(37, 12, WorldModelCfg(latent=16, hidden=64))
    obs, action = torch.randn(64, 37), torch.randn(64, 12)
    following, reward = obs + 0.1 * action[:, :1], action.sum(1) / 12
    terminated = (obs[:, 0] > 1).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, metrics = world_model_loss(model, obs, action, reward, terminated, following)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append({"loss": float(loss.detach())} | {name: float(x) for name, x in metrics.items()})
    for name in ("loss", "world_reconstruction", "world_next_obs", "world_reward", "world_done"):
        assert losses[-1][name] < 0.8 * losses[0][name], name
    assert losses[0]["loss"] == pytest.approx(sum(value for name, value in losses[0].items() if name != "loss"), rel=1e-5)


def test_world_model_learns_from_rollouts_with_their_final_observations():
    engine = training_engine(**{"world_model.enabled": True, "world_model.latent": 16, "world_model.hidden": 32})
    batches = []
    trainer = engine.world_model
    real = trainer.model.forward

    def watched(obs, action):
        batches.append(obs)
        return real(obs, action)

    trainer.model.forward = watched
    r = engine.collect_trajectory()
    before = [p.clone() for p in trainer.model.parameters()]
    metrics = trainer.train_on_trajectory(r, CPU)
    assert len(batches) == r.steps // 2
    torch.testing.assert_close(torch.cat(batches), r.obs[:-1].flatten(0, 1))
    assert all(math.isfinite(x) for x in metrics.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_creature_has_a_world_model_only_when_asked():
    env = registry.make("quadruped-balance", 1, threads=1)
    assert Creature(env, SMALL, WorldModelCfg()).world_model is None
    assert Creature(env, SMALL, WorldModelCfg(enabled=True)).world_model is not None
    assert np.isfinite(sum(float(p.detach().sum()) for p in Creature(env, NetworkCfg(), WorldModelCfg()).parameters()))
    assert TrainCfg().precision == "auto"
