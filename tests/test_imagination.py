"""What a world model learns from, what the policy imagines with it, and what the policy reads of it."""

import dataclasses
import math

import pytest
import torch
from small_world_model import CPU, ENSEMBLE, SMALL, of_quadruped

from entity import Creature
from environments import registry
from settings import ConfigError, override
from training import ppo
from training.engine import TrainingEngine
from training.experience import Experience
from training.guard import Guard
from training.imagination import imagine
from training.presets import preset
from training.replay import SOON, Replay
from training.world_model import WorldModelTrainer


def engine(n=64, threads=1, seed=0, world=SMALL, **changes):
    base = dataclasses.replace(preset("quadruped-balance"), seed=seed, world_model=world)
    cfg = override(base, {"ppo.rollout": 8, "network.lstm": 32, "network.critic": 32, **changes})
    env = registry.make(cfg.task, num_envs=n, cfg=cfg.env, threads=1)
    torch.manual_seed(seed)
    return TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, CPU, threads)


# What it learns from


def rollouts(made, count):
    """Return what each of some rollouts should leave in the replay buffer.

    Copies of actions, observations after them, rewards, falls, and whether the episode goes on.
    """
    stored = []
    for _ in range(count):
        rs = made.collect_trajectory()
        made.replay.add(rs, torch.randn(made.replay.latent.shape[1:]))
        steps = [
            [r.action, torch.cat((r.obs[1:], r.privileged[1:]), dim=-1), r.reward, r.terminated.float(), 1.0 - r.done()]
            for r in rs
        ]
        stored.append([torch.cat(x, dim=1) for x in zip(*steps, strict=True)])
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
    # the latent before a rollout that is not there yet has no place
    assert (replay.latent != before).any(1).any(1).sum() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_of_whole_vectors_of_sequences_are_stored_anew_in_compiled_code(dtype):
    made = engine(32)
    rollouts(made, 5)
    replay = made.replay
    expected = replay.latent.clone()
    places = torch.stack((torch.arange(32) % 3 + 1, torch.arange(32)), dim=1)  # rollouts 1, 2 or 3 of 0 to 4
    latents = torch.randn(2, 24, 2 * 8 * 32).to(dtype)
    at = latents.float().unflatten(-1, (2, 8, 32))[:, :, :, -1]  # after each of two rollouts
    for b, (first, robot) in enumerate(places.tolist()):
        for j in range(2):
            if first + 1 + j < 5:
                expected[(first + 1 + j) % 4, ..., robot] = at[:, :, j, b]
    replay.refresh(places, latents)
    assert torch.equal(replay.latent, expected)


def test_sequences_are_shorter_while_there_are_no_more():
    env = registry.make("quadruped-balance", num_envs=16, threads=1)
    replay = Replay(env, of_quadruped().latent_shape, 4, 8, 3, CPU)
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


KINDS = pytest.mark.parametrize("world", [SMALL, ENSEMBLE], ids=["recurrent", "ensemble"])


def about_to_imagine(world=SMALL, **changes):
    """Return an engine whose world model has found the latents of a second rollout, its imagination and the rollout."""
    made = engine(32, world=world, **changes)
    made.iterate()
    made.collect_trajectory()
    made.workers[0].estimate()
    rollout, _ = made.learn_world()
    made.filter_rollout(rollout)
    return made, made.imagination, rollout


@KINDS
def test_the_policy_acts_in_imagination_as_it_would_on_those_observations(world):
    made, imagination, _ = about_to_imagine(world)
    x = imagination.imagine(400, torch.Generator().manual_seed(0))
    assert x.obs.shape == (5, 400, 37) and x.action.shape == (5, 400, 12) and x.features.shape[-2:] == (5, 400)
    mean, _ = made.belief.evaluate(x.obs, x.memory)
    torch.testing.assert_close(mean, x.mean, rtol=1e-4, atol=1e-5)
    std = ((x.action - x.mean) / made.belief.std().detach()).std()
    assert float(std) == pytest.approx(1, abs=0.05)
    assert torch.equal(x.reached[0], torch.ones(400)) and float(x.reached.min()) >= 0 and float(x.reached.max()) <= 1
    # it begins at instants of the rollout, with the memory of that instant
    r = made.workers[0].rollout
    t, n = torch.nonzero((r.obs[1:, :, None] == x.obs[0, 5]).all(-1)[..., 0])[0].tolist()
    _, after = made.belief.evaluate(r.obs[: t + 1], r.state.belief, r.starts[: t + 1])
    torch.testing.assert_close(after[1][..., n] * (1 - r.starts[t + 1, n]), x.memory[1][..., 5], rtol=1e-4, atol=1e-5)


def test_an_imagined_rollout_that_begins_an_episode_remembers_nothing():
    made, imagination, rollout = about_to_imagine()
    imagination.filter_rollout(rollout._replace(keep=torch.zeros_like(rollout.keep)), made.workers)
    x = imagination.imagine(8, torch.Generator().manual_seed(0))
    assert not any(y.any() for y in x.memory) and not imagination.latest.latents[:, : imagination.model.deter].any()


@KINDS
def test_imagined_steps_count_as_far_as_they_are_probable(world, monkeypatch):
    made, imagination, _ = about_to_imagine(world)
    rollouts = []

    def uncertain(*arguments):
        rollouts.append(imagine(*arguments)._replace(goes_on=torch.full((5, 48), 0.5)))
        return rollouts[-1]

    monkeypatch.setattr("training.imagination.imagine", uncertain)
    x = imagination.imagine(48, torch.Generator().manual_seed(0))
    (d,) = rollouts
    torch.testing.assert_close(x.reached, torch.tensor([1, 0.5, 0.25, 0.125, 0.0625])[:, None].expand(5, 48))
    with torch.no_grad():
        values = made.belief.value(d.obs[..., :37], d.obs[..., 37:])
    gamma = made.cfg.ppo.gamma
    lam = made.cfg.ppo.gae_lambda
    last = torch.zeros(48)
    for t in reversed(range(5)):
        last = d.reward[t] + gamma * 0.5 * values[t + 1] - values[t] + gamma * lam * 0.5 * last
        torch.testing.assert_close(x.advantage[t], last, rtol=1e-4, atol=1e-5)


def test_an_ensemble_knows_what_was_observed_before_every_rollout():
    for world in (ENSEMBLE, dataclasses.replace(ENSEMBLE, role="exploration")):
        made = engine(8, world=world, **{"env.max_episode_seconds": 0.3})
        for i in range(3):
            made.iterate()
            r = made.workers[0].rollout
            before = torch.cat((r.obs[0], r.privileged[0]), dim=-1)
            assert torch.equal(made.replay.latent[i, 0, :-2].T, before)


@KINDS
def test_some_of_what_is_imagined_begins_before_falls_also_of_earlier_rollouts(world):
    world = dataclasses.replace(world, falls=0.5)
    made = engine(8, world=world, **{"env.fall_tilt": 0.15})
    seen, before = [], []
    for _ in range(40):
        made.collect_trajectory()
        made.workers[0].estimate()
        made.filter_rollout(made.learn_world()[0])
        r = made.workers[0].rollout
        everything = torch.cat((r.obs, r.privileged), dim=-1)
        seen.extend(zip(everything[:-1].clone(), r.done(), strict=True))
        for t, n in torch.nonzero(r.terminated).tolist():
            at = len(seen) - len(r.reward) + t  # the fall's step, which began there
            for back in range(SOON):
                if at - back < 0 or (back and seen[at - back][1][n]):
                    break
                before.append(seen[at - back][0][n])
    imagination = made.imagination
    before = torch.stack(before)
    assert imagination.falls > 0
    x = imagination.imagine(200, torch.Generator().manual_seed(0))
    for starts, where in ((x.obs[0, 100:], before[:, :37]), (x.obs[0, :100], r.obs[1:].flatten(0, 1))):
        assert (starts[:, None] == where).all(-1).any(-1).all()


def test_disagreement_is_a_reward_that_is_0_on_average(monkeypatch):
    advantages = {}
    for curiosity in (0.0, 0.3):
        world = dataclasses.replace(ENSEMBLE, role="exploration", curiosity=curiosity)
        made = engine(32, world=world, **{"ppo.gamma": 0.0, "ppo.reward_scale": 2.0})
        made.iterate()
        monkeypatch.setattr(made.creature.world_model, "disagreement", lambda obs, action: 1.0 + action[:, 0].abs())
        made.collect_trajectory()
        made.workers[0].estimate()
        advantages[curiosity] = made.workers[0].experience.advantage
    far = 1.0 + made.workers[0].rollout.action[..., 0].abs()
    more = advantages[0.3] - advantages[0.0]
    assert float(more.mean()) == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(more, 0.3 * (far / far.mean() - 1.0), rtol=1e-3, atol=1e-4)
    assert made.imagination is None


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


def test_one_worker_of_few_robots_imagines_in_every_thread():
    made = engine(16, 2, **{"ppo.minibatches": 2})
    assert len(made.workers) == 1
    made.iterate()
    made.iterate()
    imagined = made.imagine()["imagined_"]
    (horizon,) = {len(x.returns) for x in imagined}
    assert len(imagined) == 2 and horizon != made.cfg.ppo.rollout
    made.descent = None
    learnt = []
    for i, gradients in enumerate(made.gradients):
        made.gradients[i] = lambda x, part, gradients=gradients: learnt.append((x, part)) or gradients(x, part)
    made.learn_behaviour({"": [made.workers[0].experience], "imagined_": imagined})
    robots = [part.stop - part.start for x, part in learnt if len(x.returns) == horizon]
    assert sum(robots) == sum(x.returns.shape[1] for x in imagined)


def test_real_and_imagined_experience_weigh_what_they_are_asked_to():
    gradients = []
    for weight in (0.0, 0.25, 1.0):
        made = engine(64, 2, **{"ppo.minibatches": 1, "world_model.weight": weight})
        made.iterate()
        made.descent = None
        made.step = gradients.append
        made.iterate()
    real, mixed, imagined = gradients
    assert (real - imagined).norm() > 0.1 * real.norm() > 0
    torch.testing.assert_close(mixed, 0.75 * real + 0.25 * imagined, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_all_advantages_have_the_scale_of_what_happened_which_changes_slowly(rate, monkeypatch):
    made = engine(64, 2, **{"ppo.advantage_rate": rate})
    made.descent = None
    used = []
    scaled = []
    of_scaled = []
    scale = Experience.scaled

    def watched(x, mean, std):
        used.append(float(std))
        scaled.append(scale(x, mean, std))
        return scaled[-1]

    def watching(gradients):
        def found(x, robots):
            of_scaled.append(any(x is y for y in scaled))
            return gradients(x, robots)

        return found

    monkeypatch.setattr(Experience, "scaled", watched)
    made.gradients = [watching(gradients) for gradients in made.gradients]
    expected = None
    for i in range(3):
        made.collect_trajectory()
        for r in (worker.rollout for worker in made.workers):
            r.reward.mul_(1.0 + 4.0 * (i == 1))  # a rollout that stands out
        used.clear()
        of_scaled.clear()
        made.train_on_trajectory()
        real = torch.cat([worker.experience.advantage.flatten() for worker in made.workers]).var(correction=0)
        expected = real if expected is None else torch.lerp(expected, real, rate)
        assert used == pytest.approx([float(expected.sqrt())] * len(used), rel=1e-4)
        assert len(used) == 2 * (1 + made.imagines())  # of what was imagined, too
        assert of_scaled == [True] * len(used) * made.cfg.ppo.minibatches
    kept = made.variance.clone()
    made.scale(torch.tensor(math.inf))
    assert torch.equal(made.variance, kept)
    guard = Guard(made)
    made.scale(torch.tensor(1e12))
    metrics = {"reward": math.nan, "broken_rewards": 1.0}
    assert made.variance > 1e10 and guard.look(metrics) and torch.equal(made.variance, kept)
    again = engine(64, 2, **{"ppo.advantage_rate": rate})
    again.load_run_state(made.run_state(), "here")
    assert torch.equal(again.variance, kept)


def test_imagination_has_a_preset_of_few_robots():
    cfg = preset("quadruped-walk-flat", "imagination")
    gamma = preset("quadruped-walk-flat").ppo.gamma
    assert (cfg.world_model.role, cfg.train.num_envs, cfg.ppo.gamma) == ("imagination", 16, gamma)
    assert cfg.ppo.advantage_rate < 0.1 and preset("quadruped-walk-flat").ppo.advantage_rate == 1.0
    assert (
        preset("quadruped-balance").world_model.role == "off"
        and preset("quadruped-balance", "belief").world_model.role == "belief"
    )


def test_steps_along_what_was_imagined_are_those_that_python_takes():
    often = {"ppo.minibatches": 2, "ppo.epochs": 2, "ppo.target_kl": 1e-6}
    compiled, by_python = (engine(16, 2, **often) for _ in range(2))
    by_python.descent = None
    compiled.descend_with_python = None
    for _ in range(2):
        ours, theirs = (made.iterate() for made in (compiled, by_python))
    assert "imagined_kl" in ours and ours.keys() == theirs.keys()
    for name in (name for name in ours if not name.endswith("seconds")):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5)
    assert compiled.learning_rate == pytest.approx(by_python.learning_rate)
    assert compiled.learning_rate < compiled.cfg.ppo.learning_rate and compiled.updates == by_python.updates


def test_a_rollout_is_learned_from_several_times_each_with_other_imagined_ones(monkeypatch):
    made = engine(64, 1, **{"world_model.passes": 3})
    experience = []
    made.iterate()
    real = made.learn_behaviour
    monkeypatch.setattr(made, "learn_behaviour", lambda sources: (experience.append(sources), real(sources))[1])
    made.iterate()
    assert len(experience) == 3 and all(sources[""] is experience[0][""] for sources in experience)
    assert not torch.equal(experience[0]["imagined_"][0].obs, experience[1]["imagined_"][0].obs)


def test_the_learning_rate_follows_what_was_imagined_by_the_policy_of_this_instant(monkeypatch):
    made = engine(64, 1)
    made.descent = None
    seen = []
    made.iterate()
    monkeypatch.setattr("training.engine.ppo.adapt_learning_rate", lambda rate, kl, cfg: seen.append(kl) or rate)
    metrics = made.iterate()
    assert sum(seen) / len(seen) == pytest.approx(metrics["imagined_kl"]) != pytest.approx(metrics["kl"])


def test_episodes_of_one_step_are_learned_from_and_imagined_from():
    made = engine(32)
    made.iterate()
    made.collect_trajectory()
    r = made.workers[0].rollout
    r.terminated.fill_(True)
    r.starts[1:] = 1.0
    metrics = made.train_on_trajectory()
    assert made.imagines() and all(math.isfinite(x) for x in metrics.values())
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
        mean, _ = made.belief.evaluate(x.obs, x.memory, x.starts, x.context)
        torch.testing.assert_close(mean, r.mean, rtol=1e-4, atol=1e-5)
        assert torch.equal(x.context[:, :, -1], made.creature.context(worker.infer.memory))


def test_latents_before_rollouts_are_those_the_policy_read():
    made = engine(64, 2, **{"world_model.role": "belief"})
    made.iterate()
    before = torch.cat([worker.infer.memory.latent for worker in made.workers], dim=-1)
    made.collect_trajectory()
    made.world_model.train = dict
    rollout, _ = made.learn_world()
    assert torch.equal(rollout.latent, before) and before.any()


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
        whole = m.sequence(m.initial_latent(32), before.flatten(0, 1), keep, None, m.see(obs.flatten(0, 1)))
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
