"""World model: its arithmetic against hand calculations, what it learns from, what the policy imagines with it."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from config import Config, WorldModelCfg, override
from entity import BeliefState, Creature
from environments import registry
from observation import joined
from training import ppo
from training.engine import TrainingEngine
from training.imagination import Dream
from training.presets import preset
from training.replay import Replay, Sequences
from training.world_model import (
    WorldModelTrainer,
    divergence,
    latent_losses,
    overshooting_loss,
    overshooting_weights,
    world_model_loss,
)
from world_model import TwoHot, WorldModel, symexp, symlog

CPU = torch.device("cpu")
SMALL = WorldModelCfg(role="imagination", deter=16, groups=4, classes=8, hidden=24, updates=2, batch=8, capacity=4, imagined=64, horizon=5, patience=1)


def model(cfg=SMALL, obs=5, actions=3, privileged=2):
    torch.manual_seed(0)
    return WorldModel(obs, actions, cfg, privileged)


def sequences(m, steps=6, robots=7, seed=1):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    keep = (torch.rand(steps, robots, generator=g) > 0.2).float()
    terminated = torch.cat((1.0 - keep[1:], torch.zeros(1, robots)))
    size = m.normaliser.mean.numel()
    return Sequences(m.initial_latent(robots), normal(steps, robots, m.num_actions), normal(steps, robots, size), normal(steps, robots), terminated, keep)


def engine(n=64, threads=1, seed=0, world=SMALL, **changes):
    cfg = override(Config(seed=seed, world_model=world), {"ppo.rollout": 8, "network.lstm": 32, "network.critic": 32, **changes})
    env = registry.make(cfg.task, n, cfg=cfg.env, threads=1)
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
    m = model()
    logits = torch.randn(1, m.cfg.groups * m.cfg.classes)
    probs = m.probs(logits.expand(20000, -1))
    assert float(probs.min()) >= 0.01 / m.cfg.classes - 1e-7
    torch.testing.assert_close(probs.sum(-1), torch.ones(20000, m.cfg.groups))
    z = m.sample(probs).unflatten(-1, (m.cfg.groups, m.cfg.classes))
    assert torch.equal(z.sort(dim=-1).values[..., -1], torch.ones(20000, m.cfg.groups)) and torch.equal(z.sum(-1), torch.ones(20000, m.cfg.groups))
    torch.testing.assert_close(z.mean(0), probs[0], rtol=0, atol=0.02)
    leaf = logits.clone().requires_grad_()
    weights = torch.randn(m.cfg.groups * m.cfg.classes)
    through = torch.autograd.grad((m.sample(m.probs(leaf)) * weights).sum(), leaf)[0]
    torch.testing.assert_close(through, torch.autograd.grad((m.probs(leaf).flatten(-2) * weights).sum(), leaf)[0])


def test_divergences_are_those_of_categorical_variables_and_teach_one_side_each():
    p, q = (torch.randn(6, 4, 8).softmax(-1).requires_grad_() for _ in range(2))
    expected = kl_divergence(Categorical(p), Categorical(q)).sum(-1)
    torch.testing.assert_close(divergence(p, q), expected)
    dynamics, representation = latent_losses(q, p, 0.0)
    torch.testing.assert_close(dynamics, expected)
    torch.testing.assert_close(representation, expected)
    assert torch.autograd.grad(dynamics.sum(), p, allow_unused=True)[0] is None
    assert torch.autograd.grad(representation.sum(), q, allow_unused=True)[0] is None
    free = latent_losses(q, p, 1e3)
    assert all(torch.equal(x, torch.full((6,), 1e3)) for x in free)


# The model


def test_shapes_and_single_questions():
    m = model()
    obs, action = torch.randn(9, 5), torch.randn(9, 3)
    shapes = {"latent": (9, 48), "reconstruction": (9, 5), "next_latent": (9, 48), "next_obs": (9, 5), "reward": (9,), "done": (9,)}
    assert {name: tuple(x.shape) for name, x in m(obs, action).items()} == shapes
    latent = m.encode(obs)
    assert torch.equal(latent[:, :16], torch.zeros(9, 16)) and torch.equal(latent[:, 16:].sum(-1), torch.full((9,), 4.0))
    assert m.decode_all(latent).shape == (9, 7) and torch.equal(m.decode_all(latent)[:, :5], m.decode(latent))
    assert m.encode(obs, latent, action).shape == latent.shape
    assert m.predict_reward(latent, action).shape == m.predict_done(latent, action).shape == (9,)


def test_a_sequence_is_its_steps_one_after_the_other():
    m = model()
    s = sequences(m)
    seen = m.encoder(m.standardise(s.obs)[..., : m.seen])
    noise = torch.rand(6, 7, m.cfg.groups)
    latents, logits = m.observe(s.latent, s.action, seen, s.keep, noise)
    latent = s.latent
    for t in range(6):
        deter = m.advance(latent * s.keep[t][:, None], s.action[t])
        torch.testing.assert_close(logits[t], m.correct(deter, seen[t]))
        latent = torch.cat((deter, m.sample(m.probs(logits[t]), noise[t])), dim=-1)
        torch.testing.assert_close(latents[t], latent)


def test_what_was_before_an_episode_is_forgotten():
    m = model()
    s = sequences(m)._replace(keep=torch.ones(6, 7))
    s.keep[3] = 0.0
    seen, noise = m.encoder(m.standardise(s.obs)[..., : m.seen]), torch.rand(6, 7, m.cfg.groups)
    latents, _ = m.observe(s.latent, s.action, seen, s.keep, noise)
    fresh, _ = m.observe(m.initial_latent(7), s.action[3:], seen[3:], torch.ones(3, 7), noise[3:])
    torch.testing.assert_close(latents[3:], fresh)


def test_observations_come_back_in_their_units():
    m = model()
    x = torch.randn(500, 7) * torch.tensor([0.01, 1, 1, 30, 1, 1, 1]) + 5
    m.normaliser.update(x)
    torch.testing.assert_close(m.raw(m.standardise(x)), x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(m.standardise(x[:, :3]), m.standardise(x)[:, :3])


def test_the_privileged_half_is_predicted_and_seen_only_if_asked():
    for privileged, seen in ((False, 5), (True, 7)):
        m = model(WorldModelCfg(role="imagination", deter=16, hidden=24, privileged=privileged))
        assert m.seen == seen and m.decode_all(m.initial_latent(2)).shape == (2, 7)


# Learning


def test_overshooting_weights_fall_off_and_sum_to_one():
    weights = overshooting_weights(5, 0.8)
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(weights[1:] / weights[:-1], torch.full((4,), 0.8))


def test_overshooting_predicts_from_every_kth_latent_within_an_episode():
    m = model()
    s = sequences(m, steps=7)
    target = m.standardise(s.obs)
    latents, logits = m.observe(s.latent, s.action, m.encoder(target[..., : m.seen]), s.keep)
    posterior, weights = m.probs(logits), overshooting_weights(3, 0.5)
    ours = overshooting_loss(m, s, latents, posterior, target, weights, torch.Generator().manual_seed(3))
    g, expected = torch.Generator().manual_seed(3), torch.zeros(2, 7)
    latent, together = latents[0:6:3], torch.ones(2, 7)
    for j in range(3):
        at = [1 + j, 4 + j]
        together = together * s.keep[at]
        latent, prior = m.predict(latent, s.action[at], torch.rand(2, 7, m.cfg.groups, generator=g))
        error = 0.5 * (m.decoder(latent) - target[at]).square().sum(-1)
        surprise = divergence(posterior[at], prior).clamp(min=m.cfg.free_nats)
        reward = m.two_hot.loss(m.reward(torch.cat((latent, s.terminated[at][..., None]), dim=-1)), s.reward[at] * m.cfg.reward_scale)
        done = torch.nn.functional.binary_cross_entropy_with_logits(-m.predict_done(latent), 1 - s.terminated[at], reduction="none")
        expected = expected + weights[j] * together * (surprise + error + reward + done)
    torch.testing.assert_close(ours, expected.mean())
    assert overshooting_loss(m, sequences(m, steps=3), latents[:3], posterior[:3], target[:3], weights, None) == 0


@pytest.mark.parametrize("changes", [{}, {"overshoot": 2, "mask": 0.5}, {"privileged": True}])
def test_losses_of_a_fixed_batch_fall(changes):
    cfg = override(Config(world_model=SMALL), {f"world_model.{name}": x for name, x in changes.items()}).world_model
    m = model(cfg)
    s = sequences(m, 4, 48)
    s = s._replace(reward=s.action[..., 0].clamp(-1, 1) / cfg.reward_scale)
    weights = overshooting_weights(cfg.overshoot, 0.9) if cfg.overshoot else None
    optimizer, history = torch.optim.Adam(m.parameters(), lr=3e-3), []
    for _ in range(80):
        loss, metrics, latents = world_model_loss(m, s, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({"loss": float(loss.detach())} | {name: float(x) for name, x in metrics.items()})
    assert latents.shape == (4, 48, 48) and not latents.requires_grad
    for name in ("loss", "world_decode", "world_reward", "world_done", *(("world_overshoot",) if weights is not None else ())):
        assert history[-1][name] < 0.85 * history[0][name], name
    parts = sum(value for name, value in history[0].items() if name not in ("loss", "world_surprise"))
    assert history[0]["loss"] == pytest.approx(parts, rel=1e-5)


def test_a_withheld_observation_leaves_no_trace_in_the_latents():
    for mask, alike in ((1.0, True), (0.0, False)):
        m = model(override(Config(world_model=SMALL), {"world_model.mask": mask}).world_model)
        s = sequences(m)
        both = [world_model_loss(m, s._replace(obs=obs), None, torch.Generator().manual_seed(1))[2] for obs in (s.obs, -s.obs)]
        assert torch.equal(*both) == alike


def test_a_fall_costs_what_it_cost():
    m = model()
    latent = torch.randn(512, m.size)
    terminated = (latent[:, 0] > 1.5).float()
    reward = torch.where(terminated.bool(), -20.0, 0.05)
    optimizer = torch.optim.Adam([*m.reward.parameters(), *m.goes_on.parameters()], lr=3e-3)
    for _ in range(300):
        loss = m.two_hot.loss(m.reward(torch.cat((latent, terminated[:, None]), dim=-1)), reward * m.cfg.reward_scale).mean()
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(-m.predict_done(latent), 1 - terminated)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(m.predict_reward(latent).detach().mean()) == pytest.approx(float(reward.mean()), rel=0.1)


# What it learns from


def rollouts(made, count):
    """Return copies of what each of some rollouts should leave in the replay buffer: actions, observations after them, rewards, falls."""
    stored = []
    for _ in range(count):
        made.collect_trajectory()
        share = made.shares[0]
        r, d = share.rollout, share.dreamer
        d.remember(r)
        d.follow()
        done = r.done().bool()[..., None]
        full = [torch.where(done, final, now[1:]) for final, now in ((r.final_obs, r.obs), (r.final_privileged, r.privileged))]
        stored.append([x.clone() for x in (r.action, torch.cat(full, dim=-1), r.reward, r.terminated.float(), 1.0 - r.starts[:-1])])
    return stored


def test_replay_returns_whole_sequences_of_one_robot_or_its_mirror_image_also_across_its_end():
    made = engine(32, **{"env.episode_seconds": 0.3, "env.fall_tilt": 0.15})
    stored = rollouts(made, 6)
    replay = made.shares[0].dreamer.replay
    assert replay.count == 6 and replay.capacity == 4
    places = replay.draw(500)
    assert set(places[:, 0].tolist()) == {2, 3, 4} and set(places[:, 1].tolist()) == set(range(64))
    s = replay.read(places)
    assert s.action.shape == (16, 500, 12)
    assert (s.keep == 0).any() and s.terminated.any()
    for b in range(0, 500, 7):
        first, robot = places[b].tolist()
        for number, ours in enumerate((s.action, s.obs, s.reward, s.terminated, s.keep)):
            lived = torch.cat([stored[first][number][:, robot % 32], stored[first + 1][number][:, robot % 32]])
            if robot >= 32 and number < 2:
                body = made.env.body
                mirror = body.actions if number == 0 else joined(body.obs, body.privileged)
                lived = lived[:, list(mirror.columns)] * torch.tensor(mirror.signs)
            assert torch.equal(ours[:, b], lived)


def test_latents_before_rollouts_are_stored_and_stored_anew():
    made = engine(32)
    rollouts(made, 3)
    d = made.shares[0].dreamer
    assert torch.equal(d.replay.latent[0], torch.zeros(64, 48))
    assert not torch.equal(d.replay.latent[1], d.replay.latent[2])
    before = d.replay.latent.clone()
    places = torch.tensor([[0, 4], [1, 9]])
    latents = torch.randn(16, 2, 48)
    d.replay.refresh(places, latents)
    assert torch.equal(d.replay.latent[1, 4], latents[7, 0]) and torch.equal(d.replay.latent[2, 4], latents[15, 0])
    assert torch.equal(d.replay.latent[2, 9], latents[7, 1])
    changed = (d.replay.latent != before).any(-1)
    assert changed.sum() == 3  # the latent before a rollout that is not there yet has no place


def test_sequences_are_shorter_while_there_are_no_more():
    env = registry.make("quadruped-balance", 16, threads=1)
    replay = Replay(env, model(SMALL, 37, 12, 37), 4, 8, 3, CPU)
    made = engine(16)
    for count, length in ((1, 8), (2, 16), (3, 24), (4, 24), (9, 24)):
        while replay.count < count:
            (r,) = made.collect_trajectory()
            replay.add(r, torch.zeros(16, 48))
        assert replay.read(replay.draw(5)).action.shape[:2] == (length, 5)


def test_equal_observations_and_broken_losses_are_borne():
    made = engine(32)
    rollouts(made, 2)
    replay = made.shares[0].dreamer.replay
    m = model(SMALL, 37, 12, 37)
    replay.obs.fill_(0.3)
    m.normaliser.update(replay.obs[0].flatten(0, 1))
    trainer = WorldModelTrainer(m, [replay])
    assert all(math.isfinite(x) for x in trainer.train().values())
    before = [p.detach().clone() for p in m.parameters()]
    replay.reward.fill_(math.nan)
    assert trainer.train()["world_skipped"] == 2
    assert all(torch.equal(a, b) for a, b in zip(before, m.parameters(), strict=True))


# Imagination


def about_to_imagine():
    """Return an engine whose world model has followed a second rollout, and its share."""
    made = engine(32)
    made.iterate()
    made.collect_trajectory()
    (share,) = made.shares
    share.estimate()
    made.learn_world()
    return made, share


def test_the_policy_acts_in_a_dream_as_it_would_on_those_observations():
    made, share = about_to_imagine()
    d = share.dreamer.imagine(share.belief, 48)
    assert isinstance(d, Dream) and d.obs.shape == (6, 48, 74) and d.action.shape == (5, 48, 12)
    mean, _ = made.belief(d.obs[:-1, :, :37].contiguous(), d.memory)
    torch.testing.assert_close(mean, d.mean, rtol=1e-4, atol=1e-5)
    spread = ((d.action - d.mean) / made.belief.std().detach()).std()
    assert float(spread) == pytest.approx(1, abs=0.05)
    assert float(d.goes_on.min()) >= 0 and float(d.goes_on.max()) <= 1
    # it begins at instants of the rollout, with the memory of that instant
    r = share.rollout
    lived = torch.cat((r.obs[1:], r.privileged[1:]), dim=-1)
    t, n = torch.nonzero((lived[:, :, None] == d.obs[0, 5]).all(-1)[..., 0])[0].tolist()
    state = BeliefState(*(x.clone() for x in r.state))
    _, after = made.belief(r.obs[: t + 1], state, r.starts[: t + 1])
    torch.testing.assert_close(after.cell[..., n], d.memory.cell[..., 5], rtol=1e-4, atol=1e-5)


def test_imagined_steps_count_as_far_as_they_are_probable():
    made, share = about_to_imagine()
    real = share.dreamer.imagine
    dreams = []
    share.dreamer.imagine = lambda *rest: dreams.append(real(*rest)._replace(goes_on=torch.full((5, 48), 0.5))) or dreams[-1]
    share.imagine(48)
    x, d = share.imagined, dreams[0]
    torch.testing.assert_close(x.reached, torch.tensor([1, 0.5, 0.25, 0.125, 0.0625])[:, None].expand(5, 48))
    with torch.no_grad():
        values = made.belief.value(d.obs[..., :37], d.obs[..., 37:])
    gamma, lam, last = made.cfg.ppo.gamma, made.cfg.ppo.gae_lambda, torch.zeros(48)
    for t in reversed(range(5)):
        last = d.reward[t] + gamma * 0.5 * values[t + 1] - values[t] + gamma * lam * 0.5 * last
        torch.testing.assert_close(x.advantage[t], last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_imagination_begins_after_a_while_and_is_learned_from(threads):
    made = engine(64, threads)
    first, second = made.iterate(), made.iterate()
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
    assert (cfg.world_model.role, cfg.train.num_envs, cfg.ppo.gamma) == ("imagination", 32, preset("quadruped-walk-flat").ppo.gamma)
    assert preset("quadruped-balance").world_model.role == "off"


def test_episodes_of_one_step_are_lived_through_but_not_imagined_from():
    made = engine(32)
    made.iterate()
    made.collect_trajectory()
    r = made.shares[0].rollout
    r.terminated.fill_(True)
    r.starts[1:] = 1.0
    metrics = made.train_on_trajectory()
    assert made.dreams() and "imagined_kl" not in metrics
    assert all(math.isfinite(x) for x in metrics.values())
    assert "imagined_kl" in made.iterate()


def test_advantages_of_a_certain_future_are_the_ordinary_ones():
    reward, value = torch.randn(6, 3), torch.randn(7, 3)
    certain = ppo.generalised_advantages(reward, value[:-1], value[1:], torch.zeros(6, 3), 0.9, 0.8)
    half = ppo.generalised_advantages(reward, value[:-1], 0.5 * value[1:], torch.full((6, 3), 0.5), 0.9, 0.8)
    torch.testing.assert_close(half, ppo.generalised_advantages(reward, value[:-1], 0.5 * value[1:], torch.zeros(6, 3), 0.9, 0.4))
    assert not torch.allclose(half, certain)
