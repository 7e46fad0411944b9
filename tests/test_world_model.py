"""World model: its arithmetic against hand calculations, what it expects, and what it learns."""

import math
import types

import pytest
import torch
from small_world_model import CPU, SMALL, model, of_quadruped
from torch.distributions import Categorical, kl_divergence

from config import Config
from settings import ConfigError, override
from training.presets import preset
from training.replay import Sequences
from training.world_model import (
    Chance,
    Recorded,
    divergence,
    latent_losses,
    observation_loss,
    outcome_losses,
    overshooting_loss,
    overshooting_weights,
    world_model_loss,
)
from world_model import TwoHot, probabilities, sample, symexp, symlog


def sequences(m, steps=6, robots=7, seed=1):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    keep = (torch.rand(steps, robots, generator=g) > 0.2).float()
    terminated = (1.0 - keep) * (torch.rand(steps, robots, generator=g) > 0.3)
    return Sequences(
        m.initial_latent(robots),
        normal(steps, robots, m.num_actions),
        normal(steps, robots, m.num_all),
        normal(steps, robots),
        terminated,
        keep,
    )


def course(m, s, noise=None):
    """Return what a model takes sequences for."""
    return m.sequence(s.latent, s.action.flatten(0, 1), s.keep, noise, m.see(s.obs.flatten(0, 1)))


# Arithmetic


def test_symlog_keeps_small_numbers_shrinks_large_ones_and_has_an_inverse():
    x = torch.tensor([-1e4, -3.0, -1e-3, 0.0, 1e-3, 2.0, 1e4])
    torch.testing.assert_close(symexp(symlog(x)), x)
    torch.testing.assert_close(symlog(x)[2:5], x[2:5], rtol=1e-3, atol=0)
    assert float(symlog(torch.tensor(math.e - 1))) == pytest.approx(1)


def test_two_bins_hold_a_number_and_the_mean_of_bins_is_a_mean():
    two_hot = TwoHot(41, 8.0)
    x = torch.tensor([-1000.0, -2.5, 0.0, 0.07, 3.0, 2900.0])
    logits = torch.zeros(6, 41, requires_grad=True)
    (gradient,) = torch.autograd.grad(two_hot.loss(logits, x).sum(), logits)
    target = 1 / 41 - gradient  # of a cross entropy: softmax less target
    torch.testing.assert_close((target * two_hot.values).sum(-1), x, rtol=1e-3, atol=1e-2)
    assert ((target > 1e-6).sum(-1) <= 2).all()
    # a fall in a hundred weighs what it weighs
    mixture = (0.99 * target[4] + 0.01 * target[0]).clamp(min=1e-9)
    assert float(two_hot.expectation(mixture.log())) == pytest.approx(0.99 * 3 - 0.01 * 1000, rel=0.01)


def test_samples_are_one_hot_as_frequent_as_probable_and_gradients_go_straight_through():
    logits = torch.randn(1, 32, 1)
    probs = probabilities(logits.expand(-1, -1, 20000), 4)
    assert float(probs.min()) >= 0.01 / 8 - 1e-7
    torch.testing.assert_close(probs.sum(2), torch.ones(1, 4, 20000))
    z = sample(probs, torch.rand(1, 4, 20000)).unflatten(1, (4, 8))
    assert torch.equal(z.amax(2), torch.ones(1, 4, 20000)) and torch.equal(z.sum(2), torch.ones(1, 4, 20000))
    torch.testing.assert_close(z.mean(-1), probs[..., 0], rtol=0, atol=0.02)
    likeliest = sample(probs, None).unflatten(1, (4, 8))[..., 0]
    assert torch.equal(likeliest.argmax(2), probs[..., 0].argmax(2)) and float(likeliest.sum()) == 4
    leaf = logits.clone().requires_grad_()
    weights = torch.randn(1, 32, 1)
    through = torch.autograd.grad((sample(probabilities(leaf, 4), torch.rand(1, 4, 1)) * weights).sum(), leaf)[0]
    torch.testing.assert_close(
        through, torch.autograd.grad((probabilities(leaf, 4).flatten(1, 2) * weights).sum(), leaf)[0]
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_divergences_are_those_of_categorical_variables_and_teach_one_side_each(compiled):
    m = of_quadruped()
    m.use_fused = compiled
    posterior, prior = (torch.randn(2, 16, 37).requires_grad_() for _ in range(2))

    def of(logits):
        return Categorical(probs=probabilities(logits, 2).transpose(2, 3))

    expected = kl_divergence(of(posterior), of(prior)).sum((0, 1))
    torch.testing.assert_close(divergence(probabilities(posterior, 2), probabilities(prior, 2)), expected)
    m.cfg = override(Config(world_model=SMALL), {"world_model.free_nats": float(expected.detach().mean())}).world_model
    dynamics, representation, kl = latent_losses(m, prior, posterior)
    torch.testing.assert_close(kl, expected.detach())
    teaches = (expected >= m.cfg.free_nats).float().detach()
    assert 5 < float(teaches.sum()) < 32
    for loss, taught, left in ((dynamics, prior, posterior), (representation, posterior, prior)):
        torch.testing.assert_close(loss, expected.clamp(min=m.cfg.free_nats))
        weights = torch.randn(37)
        gradients = torch.autograd.grad((loss * weights).sum(), (taught, left), allow_unused=True, retain_graph=True)
        assert gradients[1] is None or not gradients[1].any()
        torch.testing.assert_close(
            gradients[0],
            torch.autograd.grad((expected * weights * teaches).sum(), taught, retain_graph=True)[0],
            rtol=1e-4,
            atol=1e-6,
        )


# The model


def test_shapes_and_single_questions():
    m = model()
    obs = torch.randn(9, 5)
    action = torch.randn(9, 3)
    shapes = {
        "latent": (9, 48), "reconstruction": (9, 5), "next_latent": (9, 48), "next_obs": (9, 5), "reward": (9,),
        "done": (9,),
    }  # fmt: skip
    assert {name: tuple(x.shape) for name, x in m(obs, action).items()} == shapes
    latent = m.encode(obs)
    assert torch.equal(latent[:, :16], torch.zeros(9, 16)) and torch.equal(
        latent[:, 16:].sum(-1), torch.full((9,), 4.0)
    )
    assert m.decode_all(m.columns(latent)).shape == (9, 7) and torch.equal(
        m.decode_all(m.columns(latent))[:, :5], m.decode(latent)
    )
    assert m.encode(obs, latent, action).shape == latent.shape
    assert m.predict_reward(latent, action).shape == m.predict_done(latent, action).shape == (9,)
    assert of_quadruped()(torch.randn(9, 37), torch.randn(9, 12))["next_obs"].shape == (9, 37)


def test_a_sequence_is_its_steps_one_after_the_other():
    m = of_quadruped()
    s = sequences(m)
    noise = m.noise(42)
    whole = course(m, s, noise)
    latent = s.latent
    for t in range(6):
        step = Sequences(latent, *(x[t : t + 1] for x in s[1:]))
        now = course(m, step, noise[..., 7 * t : 7 * t + 7])
        for ours, theirs in zip(now[:3], whole[:3], strict=True):
            torch.testing.assert_close(ours, theirs[..., 7 * t : 7 * t + 7])
        latent = now.last
    torch.testing.assert_close(latent, whole.last)


def test_an_episode_begins_with_its_observation_and_nothing_remembered():
    m = of_quadruped()
    s = sequences(m)._replace(keep=torch.ones(6, 7))
    s.keep[3] = 0.0
    noise = m.noise(42)
    whole = course(m, s, noise)
    assert not whole.latents[:, : m.deter, 21:28].any() and whole.latents[:, m.deter :, 21:28].any()
    assert whole.follows[..., 21:28].any()  # what followed from the last action of the episode before
    other = Sequences(torch.randn_like(s.latent), *(x[3:] for x in s[1:]))
    fresh = course(m, other, noise[..., 21:])
    torch.testing.assert_close(whole.latents[..., 21:], fresh.latents)


def test_what_it_expects_in_the_mirror_is_the_mirror_image_of_what_it_expects():
    m = of_quadruped()
    s = sequences(m)._replace(latent=torch.randn(2, m.deter + m.stoch, 7))
    image = s._replace(
        action=m.of_actions(s.action), obs=m.of_all(s.obs), latent=s.latent * torch.tensor([1.0, -1.0])[:, None, None]
    )
    noise = m.noise(42)
    ours = course(m, s, noise)
    theirs = course(m, image, noise.flip(0))
    torch.testing.assert_close(m.decode_all(theirs.latents), m.of_all(m.decode_all(ours.latents)), rtol=1e-4, atol=1e-4)
    for a, b in zip(m.predict_outcome(ours.follows), m.predict_outcome(theirs.follows), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.logits.flip(0), theirs.logits, rtol=1e-4, atol=1e-5)
    assert (m.decode_all(theirs.latents) - m.decode_all(ours.latents)).abs().max() > 0.1


def test_observations_come_back_in_their_units():
    m = model()
    x = torch.randn(500, 7) * torch.tensor([0.01, 1, 1, 30, 1, 1, 1]) + 5
    m.normaliser.update(x)
    torch.testing.assert_close(m.raw(m.standardise(x)), x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(m.standardise(x[:, :3]), m.standardise(x)[:, :3])


def test_the_decoder_is_compared_with_what_was_seen_from_both_sides():
    m = of_quadruped()
    x = torch.randn(9, m.num_all)
    y = m.standardise(x)
    target = m.both_sides(x)
    torch.testing.assert_close(target[0, : m.num_all], y.T)
    torch.testing.assert_close(target[1, : m.num_all], m.of_all(y).T)
    m.decoder = torch.nn.Sequential(torch.nn.Identity())  # whose "latents" are what it decodes
    torch.testing.assert_close(m.decode_all(target), m.raw(y), rtol=1e-4, atol=1e-4)
    assert float(observation_loss(m, target, target).sum()) == 0
    torch.testing.assert_close(observation_loss(m, target + 1.0, target), torch.full((9,), 0.5 * target.shape[1]))
    m.cfg = override(Config(world_model=SMALL), {"world_model.decode": 7.0}).world_model
    torch.testing.assert_close(observation_loss(m, target + 1.0, target), torch.full((9,), 3.5 * target.shape[1]))


def test_the_privileged_half_is_predicted_and_seen_only_if_asked():
    for privileged, seen in ((False, 5), (True, 7)):
        m = model(override(Config(world_model=SMALL), {"world_model.privileged": privileged}).world_model)
        assert m.seen_features.size == seen and m.decode_all(m.initial_latent(2)).shape == (2, 7)


@pytest.mark.parametrize("name", ["deter", "groups", "hidden"])
def test_sizes_that_two_sides_cannot_share_are_refused(name):
    with pytest.raises(ConfigError, match=f"world_model.{name}: expected an even number"):
        of_quadruped(override(Config(world_model=SMALL), {f"world_model.{name}": 7}).world_model)


def test_sizes_that_compiled_code_cannot_take_are_computed_without():
    m = of_quadruped(
        override(Config(world_model=SMALL), {"world_model.deter": 6, "world_model.hidden": 10}).world_model
    )
    s = sequences(m)
    loss, _, _ = world_model_loss(m, s, Chance(CPU, 0))
    loss.backward()
    assert all(p.grad is not None for p in m.parameters())


@pytest.mark.parametrize("make", [model, of_quadruped])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_the_same_in_plain_pytorch_compiled_and_recorded(make, dtype):
    m = make(
        override(Config(world_model=SMALL), {"world_model.free_nats": 0.01}).world_model
    )  # or the prior learns nothing
    m.dtype = dtype
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    m.normaliser.update(2.0 * torch.randn(100, m.num_all) + 1.0)
    s = sequences(m, 5, 32)._replace(latent=torch.randn(*m.latent_shape, 32))
    s.reward.mul_(torch.logspace(-3, 4, 32))  # some beyond the bins
    parameters = list(m.parameters())
    found = []
    for use_fused in (False, True):
        m.use_fused = use_fused
        loss, metrics, latents = world_model_loss(m, s, Chance(CPU, 3))
        vector = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        found.append((vector, metrics, latents))
    assert m.is_recordable(32) and not m.is_recordable(7)
    assert all(part.any() for part in found[0][0].split([p.numel() for p in parameters]))
    replay = types.SimpleNamespace(read=lambda places, length: s, steps=5)
    places = torch.zeros(32, 2, dtype=torch.int64)
    recorded = Recorded(m, replay, places, 1, parameters)
    recorded(places, Chance(CPU, 1))
    found.append(recorded(places, Chance(CPU, 3)))
    plain, *others = found
    exact = dtype == torch.float32
    for vector, metrics, latents in others:
        alike = torch.nn.functional.cosine_similarity(vector, plain[0], dim=0)
        assert float(alike) > (1.0 - 1e-6 if exact else 0.99)
        assert float(vector.norm()) == pytest.approx(float(plain[0].norm()), rel=1e-4 if exact else 0.05)
        assert metrics.keys() == plain[1].keys()
        for name, x in metrics.items():
            assert float(x) == pytest.approx(float(plain[1][name]), rel=1e-4 if exact else 0.05, abs=1e-5), name
        if exact:  # else a class is another one here and there
            torch.testing.assert_close(latents, plain[2], rtol=1e-4, atol=1e-4)


# Learning


def test_overshooting_weights_fall_off_and_sum_to_one():
    weights = overshooting_weights(5, 0.8)
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(weights[1:] / weights[:-1], torch.full((4,), 0.8))


def test_overshooting_predicts_from_every_kth_latent_within_an_episode():
    m = of_quadruped()
    s = sequences(m, steps=7)
    target = m.both_sides(s.obs.flatten(0, 1))
    real = course(m, s, m.noise(49))
    weights = overshooting_weights(3, 0.5)
    ours = overshooting_loss(m, s, real, target, weights, Chance(CPU, 3))
    noise = Chance(CPU, 3).draw(2, m.groups, 3 * 14).unflatten(-1, (3, 14))
    of = lambda x, t: x.unflatten(-1, (7, 7))[..., t, :]  # noqa: E731  a step of all robots
    expected = torch.zeros(14)
    latent = torch.cat([of(real.latents, t) for t in (0, 3)], dim=-1)
    alive = torch.ones(14)
    for j in range(3):
        at = (1 + j, 4 + j)
        action, keep, reward, terminated = (
            torch.cat([x[t] for t in at]) for x in (s.action, s.keep, s.reward, s.terminated)
        )
        ahead = m.sequence(latent, action, torch.ones(1, 14), noise[..., j, :])
        came = sum(outcome_losses(m, ahead.follows, reward, terminated).values())
        seen = observation_loss(m, ahead.latents, torch.cat([of(target, t) for t in at], dim=-1))
        surprise = latent_losses(m, ahead.logits, torch.cat([of(real.logits, t) for t in at], dim=-1))[0]
        expected = expected + weights[j] * (alive * came + alive * keep * (seen + surprise))
        alive = alive * keep
        latent = ahead.last
    torch.testing.assert_close(ours, expected.mean())
    assert overshooting_loss(m, sequences(m, steps=3), real, target, weights, None) == 0


@pytest.mark.parametrize("changes", [{}, {"overshoot": 2, "mask": 0.5}, {"privileged": True}])
@pytest.mark.parametrize("mirrored", [False, True])
def test_losses_of_a_fixed_batch_fall(changes, mirrored):
    cfg = override(Config(world_model=SMALL), {f"world_model.{name}": x for name, x in changes.items()}).world_model
    m = of_quadruped(cfg) if mirrored else model(cfg)
    s = sequences(m, 4, 48)
    s = s._replace(reward=s.action[..., 0].abs().clamp(max=1) / cfg.reward_scale)
    weights = overshooting_weights(cfg.overshoot, 0.9) if cfg.overshoot else None
    optimizer = torch.optim.Adam(m.parameters(), lr=3e-3)
    history = []
    chance = Chance(CPU, 1)
    for _ in range(80):
        loss, metrics, latents = world_model_loss(m, s, chance, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({"loss": float(loss.detach())} | {name: float(x) for name, x in metrics.items()})
    assert latents.shape == (m.sides, 48 // m.sides, 4 * 48) and not latents.requires_grad
    ahead = ("world_overshoot",) if weights is not None else ()
    for name in ("loss", "world_decode", "world_reward", "world_done", *ahead):
        assert history[-1][name] < 0.9 * history[0][name], name
    parts = sum(value for name, value in history[0].items() if name not in ("loss", "world_surprise"))
    assert history[0]["loss"] == pytest.approx(parts, rel=1e-5)


def test_compiled_losses_and_gradients_are_the_plain_ones(monkeypatch):
    cfg = override(Config(world_model=SMALL), {"world_model.overshoot": 2, "world_model.mask": 0.5}).world_model
    m = of_quadruped(cfg)
    s = sequences(m, 5, 33)
    found = []
    for compiled in (True, False):
        if not compiled:
            m.use_fused = False
            monkeypatch.setattr("world_model.compilable", lambda x, *sizes: False)
        loss, metrics, _ = world_model_loss(m, s, Chance(CPU, 5), overshooting_weights(2, 0.9))
        found.append([loss, *metrics.values(), *torch.autograd.grad(loss, list(m.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_withheld_observation_leaves_no_trace_in_the_latents():
    for mask, alike in ((1.0, True), (0.0, False)):
        m = model(override(Config(world_model=SMALL), {"world_model.mask": mask}).world_model)
        s = sequences(m)
        both = [world_model_loss(m, s._replace(obs=obs), Chance(CPU, 1))[2] for obs in (s.obs, -s.obs)]
        assert torch.equal(*both) == alike


def test_chance_is_uniform_lies_in_one_place_and_comes_again_with_its_seed():
    chance = Chance(CPU, 4)
    first = chance.draw(20, 30).clone()
    place = chance.memory.data_ptr()
    second = chance.draw(600)
    assert second.data_ptr() == place and not torch.equal(first.flatten(), second)
    assert float(first.min()) >= 0 and float(first.max()) < 1 and float(first.mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(Chance(CPU, 4).draw(20, 30), first)


def test_a_fall_costs_what_it_cost():
    m = model()
    follows = torch.randn(1, m.deter, 512)
    terminated = (follows[0, 0] > 1.5).float()
    reward = torch.where(terminated.bool(), -20.0, 0.05)
    optimizer = torch.optim.Adam([*m.outcome.parameters(), m.outcome_weight, m.outcome_bias], lr=3e-3)
    for _ in range(300):
        loss = sum(outcome_losses(m, follows, reward, terminated).values()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(m.reward(m.predict_outcome(follows)).detach().mean()) == pytest.approx(float(reward.mean()), rel=0.1)


@pytest.mark.parametrize(
    ("role", "size", "deter", "features"),
    [
        ("belief", "small", 128, 192),
        ("imagination", "small", 128, 384),
        ("belief", "medium", 512, 1024),
        ("belief", "large", 1024, 2048),
    ],
)
def test_sizes_come_by_name(role, size, deter, features):
    cfg = preset("quadruped-balance", role, size)
    m = of_quadruped(cfg.world_model)
    assert cfg.world_model.deter == deter and m.size == features
    loss, _, _ = world_model_loss(m, sequences(m, 3, 5), Chance(CPU, 0))
    assert math.isfinite(float(loss.detach()))
