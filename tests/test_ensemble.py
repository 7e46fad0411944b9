"""What networks that know one step make of it, how they learn it, and what leads to falls."""

import pytest
import torch
from small_world_model import CPU, ENSEMBLE, model, of_quadruped

from config import Config
from settings import ConfigError, override
from training.ensemble import EnsembleTrainer, ensemble_loss
from training.replay import SOON, Replay, Transitions, before_falls


def configured(**changes):
    named = {f"world_model.{name}": value for name, value in changes.items()}
    return override(Config(world_model=ENSEMBLE), named).world_model


def knowing(made, steps=400):
    """Return a model that has seen some steps, one in ten of them a fall."""
    obs = torch.randn(steps, made.num_all)
    fell = (torch.arange(steps) % 10 == 0).float()
    made.learn_scale(made.scales(obs, torch.where(fell > 0, -3.0, 0.1 * obs[:, 0]), fell))
    return made


# A step


def test_what_it_expects_in_the_mirror_is_the_mirror_image_of_what_it_expects():
    m = knowing(of_quadruped(ENSEMBLE))
    obs = torch.randn(9, m.num_all)
    action = torch.randn(9, 12)
    noise = m.noise(9)
    with torch.no_grad():
        ours = m.step(obs, action, noise)
        theirs = m.step(m.of_all(obs), m.of_actions(action), noise)
    torch.testing.assert_close(theirs[:, :-2], m.of_all(ours[:, :-2]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(theirs[:, -2:], ours[:, -2:], rtol=1e-4, atol=1e-4)
    assert (theirs - ours)[:, :-2].abs().max() > 0.1


def test_noise_chooses_members_and_without_it_all_have_their_say():
    m = knowing(of_quadruped(ENSEMBLE))
    obs = torch.randn(6, m.num_all)
    action = torch.randn(6, 12)
    with torch.no_grad():
        first, second = (m.after(member, obs, action) for member in m.members)
        mixed = m.step(obs, action, torch.tensor([0.0, 0.9, 0.49, 0.5, 0.999, 0.1]))
        mean = m.step(obs, action, None)
    which = torch.tensor([0, 1, 0, 1, 1, 0])[:, None]
    torch.testing.assert_close(mixed, torch.where(which == 0, first, second), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean, 0.5 * (first + second))
    assert (first - second).abs().max() > 0.01


def test_nothing_is_expected_beyond_what_was_seen():
    m = knowing(of_quadruped(ENSEMBLE))
    with torch.no_grad():
        for member in m.members:
            member.change.weight.mul_(1e4)
            member.outcome[2].weight.mul_(1e4)
            member.goes_on.more.fill_(20.0)
        after = m.step(torch.randn(50, m.num_all), torch.randn(50, 12), m.noise(50))
    assert (after[:, :-2] <= m.high[:-1] + 1e-3).all() and (after[:, :-2] >= m.low[:-1] - 1e-3).all()
    assert (after[:, :-2] > 0.99 * m.high[:-1]).any()
    assert (
        float(after[:, -2].min()) >= float(m.low[-1]) - 1e-3 and float(after[:, -2].max()) <= float(m.high[-1]) + 1e-3
    )
    assert m.low[-1] == -3.0


def test_a_fall_is_worth_what_falls_were_worth():
    m = knowing(of_quadruped(ENSEMBLE))
    with torch.no_grad():
        for member in m.members:
            member.goes_on.more.fill_(-30.0)
        latent = m.predict(m.initial_latent(5), torch.randn(5, 12), m.noise(5))
        reward, goes_on = m.outcomes(m.way(latent))
    torch.testing.assert_close(reward, torch.full((5,), -3.0))
    assert float(goes_on.sigmoid().max()) < 1e-6


def test_a_sequence_is_its_steps_one_after_the_other():
    m = knowing(of_quadruped(ENSEMBLE))
    action = torch.randn(12, 12)
    noise = m.noise(12)
    obs = torch.randn(12, m.num_all)
    with torch.no_grad():
        start = m.predict(m.initial_latent(3), torch.randn(3, 12), None)
        whole = m.sequence(start, action, torch.ones(4, 3), noise)
        latent = start
        for t in range(4):
            latent = m.predict(latent, action[3 * t : 3 * t + 3], noise[3 * t : 3 * t + 3])
            torch.testing.assert_close(whole.latents[..., 3 * t : 3 * t + 3], latent)
        torch.testing.assert_close(whole.last, latent)
        keep = torch.ones(4, 3)
        keep[2, 1] = 0.0
        seen = m.sequence(start, action, keep, noise, m.see(obs))
    torch.testing.assert_close(m.decode_all(seen.latents), obs)
    ended = 2 * 3 + 1
    assert not seen.latents[0, -2:, ended].any() and seen.follows[0, -2:, ended].any()
    torch.testing.assert_close(
        seen.latents[..., 3:6],
        torch.cat((obs[3:6].T, m.step(obs[:3], action[3:6], noise[3:6]).T[-2:]))[None],
        rtol=1e-4,
        atol=1e-5,
    )


def test_single_questions():
    m = knowing(model(ENSEMBLE))
    obs = torch.randn(9, 7)
    latent = m.encode(obs)
    assert latent.shape == (9, 9)
    torch.testing.assert_close(m.decode(latent), obs[:, :5])
    after = m.predict_next(latent, torch.randn(9, 3))
    assert after.shape == latent.shape and m.predict_reward(after).shape == m.predict_done(after).shape == (9,)


def test_what_two_sides_or_a_policy_cannot_use_is_refused():
    with pytest.raises(ConfigError, match=r"world_model\.hidden: expected an even number"):
        of_quadruped(configured(hidden=7))
    with pytest.raises(ConfigError, match=r"world_model\.kind: expected recurrent in role belief"):
        configured(role="belief")
    with pytest.raises(ConfigError, match=r"world_model\.kind: expected ensemble in role exploration"):
        configured(role="exploration", kind="recurrent")
    with pytest.raises(ConfigError, match=r"world_model\.members: expected at least 2 in role exploration"):
        configured(role="exploration", members=1)


def test_members_disagree_where_they_know_nothing():
    m = knowing(of_quadruped(ENSEMBLE))
    obs = torch.randn(50, m.num_all)
    action = torch.randn(50, 12)
    far = m.disagreement(obs, action)
    assert far.shape == (50,) and float(far.min()) > 0.0
    first, second = m.members
    second.load_state_dict(first.state_dict())
    assert float(m.disagreement(obs, action).max()) < 1e-5


# Learning


def world(steps, seed):
    """Return steps of a world of seven numbers: pushed along by three actions, and over at more than 1.5."""
    draw = torch.Generator().manual_seed(seed)
    before = torch.randn(steps, 7, generator=draw)
    action = torch.randn(steps, 3, generator=draw)
    after = before.clone()
    after[:, :3] += 0.5 * action
    after[:, 3:] *= 0.8
    fell = (after[:, 0] > 1.5).float()
    reward = torch.where(fell > 0, -2.0, 0.1 * after[:, 1] - 0.05 * action[:, 2])
    return Transitions(before, action, after, reward, fell, 1.0 - fell)


def test_it_learns_a_world_and_what_actions_are_worth_in_it():
    torch.manual_seed(0)
    m = model(configured(hidden=64))
    known, new = world(4000, 1), world(1000, 2)
    m.learn_scale(m.scales(known.after, known.reward, known.terminated))
    optimizer = torch.optim.Adam(m.parameters(), 3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(500):
        which = torch.randint(4000, (256,), generator=draw)
        loss, parts = ensemble_loss(m, Transitions(*(x[which] for x in known)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert set(parts) == {"world_dynamics", "world_reward", "world_done"}
    with torch.no_grad():
        after = m.step(new.before, new.action, m.noise(1000))
    on = new.keep > 0
    error = (after[on, :-2] - new.after[on]).square().mean(0) / (new.after - new.before)[on].var(0)
    assert float(error.max()) < 0.1
    agrees = (after[:, -1] > 0) == on
    assert float(agrees.float().mean()) > 0.96
    assert float(torch.corrcoef(torch.stack((after[:, -2], new.reward)))[0, 1]) > 0.75
    with torch.no_grad():
        for member in m.members:
            member.goes_on.more.fill_(30.0)
        if_on = m.step(new.before, new.action, m.noise(1000))[:, -2]
    assert float(torch.corrcoef(torch.stack((if_on, new.reward))[:, on])[0, 1]) > 0.95


def test_the_step_that_ends_an_episode_teaches_only_that_it_does():
    m = knowing(model(ENSEMBLE))
    s = world(64, 1)
    other = s._replace(
        after=torch.where(s.keep[:, None] > 0, s.after, 9.0), reward=torch.where(s.keep > 0, s.reward, 9.0)
    )
    assert s.terminated.any()
    for a, b in zip(ensemble_loss(m, s)[1].values(), ensemble_loss(m, other)[1].values(), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-6)
    healthy = s._replace(terminated=torch.zeros(64))
    assert float(ensemble_loss(m, healthy)[1]["world_done"]) != float(ensemble_loss(m, s)[1]["world_done"])


class Env:
    num_envs, num_actions, num_obs, num_privileged = 3, 3, 5, 2


def filled(made, rollouts=6, steps=4):
    """Return a replay buffer of 5 rollouts after some more, and all (T, N, ...) that it should hold, in order."""
    replay = Replay(Env, made.latent_shape, 5, steps, 1, CPU)
    everything = [], [], [], []
    obs = torch.randn(3, 7)
    for _ in range(rollouts):
        i = replay.count % 5
        replay.latent[i, 0, :7] = obs.T
        for t in range(steps):
            replay.action[i, t] = torch.randn(3, 3)
            replay.terminated[i, t] = (torch.rand(3) < 0.15).float()
            replay.keep[i, t] = 1.0 - replay.terminated[i, t]
            before, obs = obs, torch.randn(3, 7)
            replay.obs[i, t] = obs
            for kept, new in zip(everything, (before, replay.action[i, t], obs, replay.terminated[i, t]), strict=True):
                kept.append(new.clone())
        replay.count += 1
    return replay, [torch.stack(x[-5 * steps :]) for x in everything]


def test_steps_before_falls_are_known_within_their_episode():
    terminated = torch.zeros(20, 3)
    keep = torch.ones(20, 3)
    for t, n in ((15, 0), (3, 1), (16, 1)):
        terminated[t, n] = 1.0
        keep[t, n] = 0.0
    keep[12, 1] = 0.0  # ended by time
    soon = before_falls(terminated, keep)
    assert torch.nonzero(soon[:, 0])[:, 0].tolist() == list(range(16 - SOON, 16))
    assert torch.nonzero(soon[:, 1])[:, 0].tolist() == [0, 1, 2, 3, 13, 14, 15, 16]
    assert not soon[:, 2].any()


def test_steps_are_drawn_as_they_happened_also_over_the_end_of_the_ring():
    torch.manual_seed(1)
    m = model(ENSEMBLE)
    replay, (before, action, after, terminated) = filled(m)
    dangerous = replay.dangerous()
    assert 0 < len(dangerous) < 60
    for share in (0.0, 0.5):
        s = replay.transitions(600, torch.Generator().manual_seed(0), share, dangerous)
        places = [torch.nonzero((action.flatten(0, 1) == a).all(-1))[0, 0].item() for a in s.action]
        assert set(places) == set(range(60))
        for ours, theirs in ((s.before, before), (s.after, after), (s.terminated, terminated)):
            assert torch.equal(ours, theirs.flatten(0, 1)[places])
        chosen = {3 * t + n for t, n in dangerous.tolist()}
        found = sum(place in chosen for place in places[:300]) / 300
        assert found == 1.0 if share else found < 0.9


def test_weights_decay_and_falls_may_be_missing():
    changes = []
    for decay in (0.0, 1.0):
        torch.manual_seed(2)
        m = knowing(model(configured(learning_rate=0.01, weight_decay=decay)))
        replay, _ = filled(m)
        replay.terminated.zero_()
        trainer = EnsembleTrainer(m, replay, 0, 2)
        trainer.warm_up()
        assert trainer.train()["world_skipped"] == 0
        changes.append(trainer.flat.detach().norm())
    assert float(changes[1] / changes[0]) == pytest.approx(0.99**2, abs=2e-3)


def test_it_is_the_average_of_what_it_learnt_but_while_it_learns(monkeypatch):
    m = knowing(model(configured(average=4, updates=1, learning_rate=0.01)))
    replay, _ = filled(m)
    trainer = EnsembleTrainer(m, replay, 0)
    seen = []
    learn = trainer.gradient
    monkeypatch.setattr(trainer, "gradient", lambda chance: seen.append(trainer.flat.detach().clone()) or learn(chance))
    average = trainer.flat.detach().clone()
    for step in range(1, 60):
        trainer.train()
        average = torch.lerp(average, trainer.learnt, max(0.25, 9 / (10 + step)))
        torch.testing.assert_close(trainer.flat.detach(), average)
    assert not torch.equal(trainer.learnt, average)
    learnt = trainer.learnt.clone()
    trainer.train()
    assert torch.equal(seen[-1], learnt)
