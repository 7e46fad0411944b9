"""World model: its arithmetic against hand calculations, what it learns from, what the policy imagines with it."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from config import Config, WorldModelCfg
from entity import Creature
from environments import registry
from settings import ConfigError, override
from training import ppo
from training.engine import TrainingEngine
from training.imagination import imagine
from training.presets import preset
from training.replay import Replay, Sequences
from training.world_model import (
    Chance,
    WorldModelTrainer,
    divergence,
    latent_losses,
    observation_loss,
    outcome_losses,
    overshooting_loss,
    overshooting_weights,
    world_model_loss,
)
from world_model import TwoHot, WorldModel, probabilities, sample, symexp, symlog

CPU = torch.device("cpu")
SMALL = WorldModelCfg(
    role="imagination", deter=16, groups=4, classes=8, hidden=24, updates=2, batch=8, sequence=2, capacity=4, passes=1, imagined=64, horizon=5, patience=1,
)  # fmt: skip
QUADRUPED = registry.make("quadruped-balance", num_envs=1)


def model(cfg=SMALL, obs=5, actions=3, privileged=2, body=None):
    torch.manual_seed(0)
    return WorldModel(obs, actions, cfg, privileged, body)


def of_quadruped(cfg=SMALL):
    """Return a world model of a body with a mirror image, whose normaliser knows something."""
    m = model(cfg, 37, 12, QUADRUPED.num_privileged, QUADRUPED.body)
    m.normaliser.update(torch.randn(200, m.num_all) * torch.linspace(0.5, 2, m.num_all) + 0.3)
    return m


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
    return m.run(s.latent, s.action.flatten(0, 1), s.keep, noise, m.encode_seen(m.standardise(s.obs.flatten(0, 1))))


def engine(n=64, threads=1, seed=0, world=SMALL, **changes):
    base = dataclasses.replace(preset("quadruped-balance"), seed=seed, world_model=world)
    cfg = override(base, {"ppo.rollout": 8, "network.lstm": 32, "network.critic": 32, **changes})
    env = registry.make(cfg.task, num_envs=n, cfg=cfg.env, threads=1)
    torch.manual_seed(seed)
    return TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, CPU, threads)


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
        "latent": (9, 48),
        "reconstruction": (9, 5),
        "next_latent": (9, 48),
        "next_obs": (9, 5),
        "reward": (9,),
        "done": (9,),
    }
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
    for a, b in zip(m.judge(ours.follows), m.judge(theirs.follows), strict=True):
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
    y = m.standardise(torch.randn(9, m.num_all))
    target = m.both_sides(y)
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


# Learning


def test_overshooting_weights_fall_off_and_sum_to_one():
    weights = overshooting_weights(5, 0.8)
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(weights[1:] / weights[:-1], torch.full((4,), 0.8))


def test_overshooting_predicts_from_every_kth_latent_within_an_episode():
    m = of_quadruped()
    s = sequences(m, steps=7)
    target = m.both_sides(m.standardise(s.obs.flatten(0, 1)))
    lived = course(m, s, m.noise(49))
    weights = overshooting_weights(3, 0.5)
    ours = overshooting_loss(m, s, lived, target, weights, Chance(CPU, 3))
    noise = Chance(CPU, 3).draw(2, m.groups, 3 * 14).unflatten(-1, (3, 14))
    of = lambda x, t: x.unflatten(-1, (7, 7))[..., t, :]  # noqa: E731  a step of all robots
    expected = torch.zeros(14)
    latent = torch.cat([of(lived.latents, t) for t in (0, 3)], dim=-1)
    alive = torch.ones(14)
    for j in range(3):
        at = (1 + j, 4 + j)
        action, keep, reward, terminated = (
            torch.cat([x[t] for t in at]) for x in (s.action, s.keep, s.reward, s.terminated)
        )
        ahead = m.run(latent, action, torch.ones(1, 14), noise[..., j, :])
        came = sum(outcome_losses(m, ahead.follows, reward, terminated).values())
        seen = observation_loss(m, ahead.latents, torch.cat([of(target, t) for t in at], dim=-1))
        surprise = latent_losses(m, ahead.logits, torch.cat([of(lived.logits, t) for t in at], dim=-1))[0]
        expected = expected + weights[j] * (alive * came + alive * keep * (seen + surprise))
        alive = alive * keep
        latent = ahead.last
    torch.testing.assert_close(ours, expected.mean())
    assert overshooting_loss(m, sequences(m, steps=3), lived, target, weights, None) == 0


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
    for name in (
        "loss",
        "world_decode",
        "world_reward",
        "world_done",
        *(("world_overshoot",) if weights is not None else ()),
    ):
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
    assert float(m.reward(m.judge(follows)).detach().mean()) == pytest.approx(float(reward.mean()), rel=0.1)


# What it learns from


def rollouts(made, count):
    """Return copies of what each of some rollouts should leave in the replay buffer: actions, observations after them, rewards, falls."""
    stored = []
    for _ in range(count):
        rs = made.collect_trajectory()
        made.replay.add(rs, torch.randn(made.replay.latent.shape[1:]))
        lived = [
            [r.action, torch.cat((r.obs[1:], r.privileged[1:]), dim=-1), r.reward, r.terminated.float(), 1.0 - r.done()]
            for r in rs
        ]
        stored.append([torch.cat(x, dim=1) for x in zip(*lived, strict=True)])
    return stored


@pytest.mark.parametrize("threads", [1, 2])
def test_replay_returns_whole_sequences_of_one_robot_also_across_its_end(threads):
    made = engine(64, threads, **{"env.max_episode_seconds": 0.3, "env.fall_tilt": 0.15})
    stored = rollouts(made, 6)
    replay = made.replay
    assert replay.count == 6 and replay.capacity == 4
    places = replay.draw(500, torch.Generator().manual_seed(0))
    assert set(places[:, 0].tolist()) == {2, 3, 4} and set(places[:, 1].tolist()) == set(range(64))
    s = replay.read(places)
    assert s.action.shape == (16, 500, 12)
    assert (s.keep == 0).any() and s.terminated.any()
    for b in range(0, 500, 7):
        first, robot = places[b].tolist()
        for number, ours in enumerate((s.action, s.obs, s.reward, s.terminated, s.keep)):
            assert torch.equal(
                ours[:, b], torch.cat([stored[first][number][:, robot], stored[first + 1][number][:, robot]])
            )
        assert torch.equal(s.latent[..., b], replay.latent[first % 4, ..., robot])


def test_latents_before_rollouts_are_stored_anew():
    made = engine(32)
    rollouts(made, 3)
    replay = made.replay
    before = replay.latent.clone()
    places = torch.tensor([[0, 4], [1, 9]])
    latents = torch.randn(2, 24, 16 * 2)
    replay.refresh(places, latents)
    at = latents.unflatten(-1, (16, 2))
    assert torch.equal(replay.latent[1, ..., 4], at[..., 7, 0]) and torch.equal(
        replay.latent[2, ..., 4], at[..., 15, 0]
    )
    assert torch.equal(replay.latent[2, ..., 9], at[..., 7, 1])
    assert (replay.latent != before).any(1).any(
        1
    ).sum() == 3  # the latent before a rollout that is not there yet has no place


def test_sequences_are_shorter_while_there_are_no_more():
    env = registry.make("quadruped-balance", num_envs=16, threads=1)
    replay = Replay(env, of_quadruped(), 4, 8, 3, CPU)
    made = engine(16)
    for count, length in ((1, 8), (2, 16), (3, 24), (4, 24), (9, 24)):
        while replay.count < count:
            replay.add(made.collect_trajectory(), torch.zeros(2, 24, 16))
        assert replay.read(replay.draw(5, torch.Generator())).action.shape[:2] == (length, 5)


@pytest.mark.parametrize("threads", [1, 2])
def test_equal_observations_and_broken_losses_are_borne(threads):
    made = engine(32)
    rollouts(made, 2)
    replay = made.replay
    m = of_quadruped()
    m.normaliser.count.zero_()
    replay.obs.fill_(0.3)
    m.normaliser.update(replay.obs[0].flatten(0, 1))
    trainer = WorldModelTrainer(m, replay, 0, threads)
    assert all(math.isfinite(x) for x in trainer.train().values())
    before = [p.detach().clone() for p in m.parameters()]
    latent = replay.latent.clone()
    replay.reward.fill_(math.nan)
    assert trainer.train()["world_skipped"] == 2
    assert all(torch.equal(a, b) for a, b in zip(before, m.parameters(), strict=True))
    assert torch.equal(replay.latent, latent)


# Imagination


def about_to_imagine():
    """Return an engine whose world model has followed a second rollout, and its dreamer."""
    made = engine(32)
    made.iterate()
    made.collect_trajectory()
    made.workers[0].estimate()
    made.follow(made.learn_world()[0])
    return made, made.dreamer


def test_the_policy_acts_in_a_dream_as_it_would_on_those_observations():
    made, dreamer = about_to_imagine()
    x = dreamer.imagine(400, torch.Generator().manual_seed(0))
    assert x.obs.shape == (5, 400, 37) and x.action.shape == (5, 400, 12) and x.features.shape[2:] == (5, 400)
    mean, _ = made.belief(x.obs, x.memory)
    torch.testing.assert_close(mean, x.mean, rtol=1e-4, atol=1e-5)
    spread = ((x.action - x.mean) / made.belief.std().detach()).std()
    assert float(spread) == pytest.approx(1, abs=0.05)
    assert torch.equal(x.reached[0], torch.ones(400)) and float(x.reached.min()) >= 0 and float(x.reached.max()) <= 1
    # it begins at instants of the rollout, with the memory of that instant
    r = made.workers[0].rollout
    t, n = torch.nonzero((r.obs[1:, :, None] == x.obs[0, 5]).all(-1)[..., 0])[0].tolist()
    _, after = made.belief(r.obs[: t + 1], r.state.belief, r.starts[: t + 1])
    torch.testing.assert_close(
        after.cell[..., n] * (1 - r.starts[t + 1, n]), x.memory.cell[..., 5], rtol=1e-4, atol=1e-5
    )


def test_a_dream_that_begins_an_episode_remembers_nothing():
    made, dreamer = about_to_imagine()
    lived = dreamer.experience._replace(keep=torch.zeros_like(dreamer.experience.keep))
    dreamer.follow(lived, made.workers)
    x = dreamer.imagine(8, torch.Generator().manual_seed(0))
    assert not any(y.any() for y in x.memory) and not dreamer.latents[:, : dreamer.model.deter].any()


def test_imagined_steps_count_as_far_as_they_are_probable(monkeypatch):
    made, dreamer = about_to_imagine()
    dreams = []

    def uncertain(*rest):
        dreams.append(imagine(*rest)._replace(goes_on=torch.full((5, 48), 0.5)))
        return dreams[-1]

    monkeypatch.setattr("training.imagination.imagine", uncertain)
    x = dreamer.imagine(48, torch.Generator().manual_seed(0))
    (d,) = dreams
    torch.testing.assert_close(x.reached, torch.tensor([1, 0.5, 0.25, 0.125, 0.0625])[:, None].expand(5, 48))
    with torch.no_grad():
        values = made.belief.value(d.obs[..., :37], d.obs[..., 37:])
    gamma = made.cfg.ppo.gamma
    lam = made.cfg.ppo.gae_lambda
    last = torch.zeros(48)
    for t in reversed(range(5)):
        last = d.reward[t] + gamma * 0.5 * values[t + 1] - values[t] + gamma * lam * 0.5 * last
        torch.testing.assert_close(x.advantage[t], last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_imagination_begins_after_a_while_and_is_learned_from(threads):
    made = engine(64, threads)
    first = made.iterate()
    second = made.iterate()
    assert "imagined_kl" not in first and {"imagined_kl", "imagined_value_loss", "world_decode", "kl"} <= set(second)
    assert all(math.isfinite(x) for metrics in (first, second) for x in metrics.values())
    again = engine(64, threads)  # the same seed, whichever thread is first
    for metrics in (first, second):
        repeated = again.iterate()
        assert all(repeated[name] == x for name, x in metrics.items() if not name.endswith("seconds"))


def test_lived_and_imagined_experience_weigh_what_they_are_asked_to():
    gradients = []
    for weight in (0.0, 0.25, 1.0):
        made = engine(64, 2, **{"ppo.minibatches": 1, "world_model.weight": weight})
        made.iterate()
        made.step = gradients.append
        made.iterate()
    lived, mixed, imagined = gradients
    assert (lived - imagined).norm() > 0.1 * lived.norm() > 0
    torch.testing.assert_close(mixed, 0.75 * lived + 0.25 * imagined, rtol=1e-4, atol=1e-6)


def test_imagination_has_a_preset_of_few_robots():
    cfg = preset("quadruped-walk-flat", "imagination")
    assert (cfg.world_model.role, cfg.train.num_envs, cfg.ppo.gamma) == (
        "imagination",
        16,
        preset("quadruped-walk-flat").ppo.gamma,
    )
    assert (
        preset("quadruped-balance").world_model.role == "off"
        and preset("quadruped-balance", "belief").world_model.role == "belief"
    )


@pytest.mark.parametrize(
    ("size", "deter", "features"), [("small", 128, 384), ("medium", 512, 1024), ("large", 1024, 2048)]
)
def test_sizes_come_by_name(size, deter, features):
    cfg = preset("quadruped-balance", "belief", size)
    m = of_quadruped(cfg.world_model)
    assert cfg.world_model.deter == deter and m.size == features
    loss, _, _ = world_model_loss(m, sequences(m, 3, 5), Chance(CPU, 0))
    assert math.isfinite(float(loss.detach()))


def test_a_rollout_is_learned_from_several_times_each_with_other_dreams(monkeypatch):
    made = engine(64, 1, **{"world_model.passes": 3})
    dreams = []
    made.iterate()
    real = made.learn_behaviour
    monkeypatch.setattr(made, "learn_behaviour", lambda sources: (dreams.append(sources), real(sources))[1])
    made.iterate()
    assert len(dreams) == 3 and all(sources[""] is dreams[0][""] for sources in dreams)
    assert not torch.equal(dreams[0]["imagined_"][0].obs, dreams[1]["imagined_"][0].obs)


def test_the_learning_rate_follows_what_was_imagined_by_the_policy_of_this_instant(monkeypatch):
    made = engine(64, 1)
    seen = []
    made.iterate()
    monkeypatch.setattr("training.engine.ppo.adapt_learning_rate", lambda rate, kl, cfg: seen.append(kl) or rate)
    metrics = made.iterate()
    assert sum(seen) / len(seen) == pytest.approx(metrics["imagined_kl"]) != pytest.approx(metrics["kl"])


def test_episodes_of_one_step_are_lived_through_and_imagined_from():
    made = engine(32)
    made.iterate()
    made.collect_trajectory()
    r = made.workers[0].rollout
    r.terminated.fill_(True)
    r.starts[1:] = 1.0
    metrics = made.train_on_trajectory()
    assert made.dreams() and all(math.isfinite(x) for x in metrics.values())
    assert "imagined_kl" in made.iterate()


# What the policy reads


def test_a_belief_reads_what_it_read_when_it_is_learned_from():
    made = engine(64, 2, **{"world_model.role": "belief", "ppo.minibatches": 1, "env.max_episode_seconds": 0.3})
    made.iterate()
    for r, worker in zip(made.collect_trajectory(), made.workers, strict=True):
        worker.estimate()
        x = worker.experience
        assert r.starts[1:].any() and x.context.shape == (2, 8, 8, 32) and x.context.abs().max() > 0.01
        assert not x.context[:, :, r.starts[:-1] > 0].any()  # nothing is remembered as an episode begins
        mean, _ = made.belief(x.obs, x.memory, x.starts, x.context)
        torch.testing.assert_close(mean, r.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(worker.memories[-1].latent, worker.infer.memory.latent)


def test_latents_before_rollouts_are_those_the_policy_read():
    made = engine(64, 2, **{"world_model.role": "belief"})
    made.iterate()
    before = torch.cat([worker.infer.memory.latent for worker in made.workers], dim=-1)
    made.collect_trajectory()
    made.world_model.train = dict
    lived, _ = made.learn_world()
    assert torch.equal(lived.latent, before) and before.any()


def test_a_creature_carries_its_latent_from_step_to_step_and_does_the_same_again():
    made = engine(32, **{"world_model.role": "belief"})
    creature = made.creature
    obs = torch.randn(5, 32, 37)
    runs = []
    for _ in range(2):
        memory = creature.initial_state(32)
        actions = []
        for o in obs:
            action, _, memory = creature.act(o, memory)
            actions.append(action)
        runs.append(torch.stack(actions))
    assert torch.equal(*runs)
    m = creature.world_model
    keep = torch.ones(5, 32)
    keep[0] = 0.0
    before = torch.cat((torch.zeros(1, 32, 12), runs[0][:-1]))
    with torch.no_grad():
        whole = m.run(
            m.initial_latent(32), before.flatten(0, 1), keep, None, m.encode_seen(m.standardise(obs.flatten(0, 1)))
        )
    torch.testing.assert_close(memory.latent, whole.last)
    # a start forgets
    _, _, again = creature.act(obs[0], memory, starts=torch.ones(32))
    torch.testing.assert_close(again.latent, creature.act(obs[0], creature.initial_state(32))[2].latent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_model.privileged": True}, "world_model.privileged: expected false in role belief"),
        ({"network.symmetric": False}, "network.symmetric: expected true"),
    ],
)
def test_a_belief_that_could_not_be_read_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        engine(32, **{"world_model.role": "belief", **changes})


def test_advantages_of_a_certain_future_are_the_ordinary_ones():
    reward = torch.randn(6, 3)
    value = torch.randn(7, 3)
    certain = ppo.generalised_advantages(reward, value[:-1], value[1:], torch.zeros(6, 3), 0.9, 0.8)
    half = ppo.generalised_advantages(reward, value[:-1], 0.5 * value[1:], torch.full((6, 3), 0.5), 0.9, 0.8)
    torch.testing.assert_close(
        half, ppo.generalised_advantages(reward, value[:-1], 0.5 * value[1:], torch.zeros(6, 3), 0.9, 0.4)
    )
    assert not torch.allclose(half, certain)
