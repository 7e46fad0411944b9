"""Proximal policy optimisation against arithmetic by hand; the engine, with one part of the robots or several."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch

import fused
from config import NetworkCfg, PPOCfg
from entity import Creature, Memory
from environments import registry
from examples.mlp import MLP
from settings import override
from training import checkpoint, parallel, ppo
from training.engine import TrainingEngine
from training.evaluation import evaluate
from training.experience import Experience
from training.gradient import Gradients, by_autograd
from training.guard import Guard
from training.inference import Inference
from training.presets import preset

CPU = torch.device("cpu")
SMALL = NetworkCfg(heads=1, head_size=4, encoder=8, lstm=8, critic=8)
GAMMA = 0.9
LAMBDA = 0.8
pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(params=[torch.float32, torch.float64], ids=["compiled", "plain"])
def column(request):
    return lambda *values: torch.tensor(values, dtype=request.param)[:, None].repeat(1, 3)


def test_advantages_of_an_unbroken_episode_by_hand(column):
    # values 1, 2, 3 and 4 after the last step
    advantage = ppo.generalised_advantages(
        column(1, 0, 2), column(1, 2, 3), column(2, 3, 4), column(0, 0, 0), GAMMA, LAMBDA
    )
    third = 2 + 0.9 * 4 - 3  # 2.6
    second = 0 + 0.9 * 3 - 2 + 0.72 * third  # 2.572
    first = 1 + 0.9 * 2 - 1 + 0.72 * second
    torch.testing.assert_close(advantage, column(first, second, third))
    assert third == pytest.approx(2.6)
    assert first == pytest.approx(3.65184)


@pytest.mark.parametrize(("next_value", "delta"), [(0.0, 0.0 - 2), (5.0, 0 + 0.9 * 5 - 2)])
def test_nothing_flows_over_the_end_of_an_episode(next_value, delta, column):
    # the second step ends it: terminated (nothing follows) or truncated (a final observation worth 5)
    advantage = ppo.generalised_advantages(
        column(1, 0, 2), column(1, 2, 3), column(2, next_value, 4), column(0, 1, 0), GAMMA, LAMBDA
    )
    torch.testing.assert_close(advantage, column(1 + 0.9 * 2 - 1 + 0.72 * delta, delta, 2.6))
    other = ppo.generalised_advantages(
        column(1, 0, 99), column(1, 2, -99), column(2, next_value, 99), column(0, 1, 0), GAMMA, LAMBDA
    )
    torch.testing.assert_close(other[:2], advantage[:2])


@pytest.mark.parametrize("shape", [(6, 3), (1, 40), (16, 37)])
def test_advantages_are_the_same_in_compiled_code(shape):
    reward, value, next_value = torch.randn(3, *shape)
    done = (torch.rand(shape) < 0.3).float()
    found, expected = (
        ppo.generalised_advantages(*(x.to(dtype) for x in (reward, value, next_value, done)), 0.95, 0.9)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="expected float32 tensors of shape"):
        ppo.generalised_advantages(reward, value[:, :-1], next_value, done, 0.95, 0.9)


@pytest.mark.parametrize("shape", [(6, 3), (1, 40), (16, 37)])
def test_estimates_are_the_same_in_compiled_code(shape):
    cfg = PPOCfg(reward_scale=0.3, gamma=0.95, gae_lambda=0.9)
    reward, final = torch.randn(2, *shape)
    value = torch.randn(shape[0] + 1, shape[1])
    terminated, truncated = torch.rand(2, *shape) < 0.3
    truncated &= ~terminated
    found, expected = (
        ppo.estimates(*(x.to(dtype) for x in (reward, value, final)), terminated, truncated, cfg)
        for dtype in (torch.float32, torch.float64)
    )
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], found[0] + value[:-1])
    with pytest.raises(ValueError, match="expected values of one step more than"):
        ppo.estimates(reward, value[1:], final, terminated, truncated, cfg)


def test_advantages_without_decay_are_returns_less_values():
    reward = torch.randn(6, 3)
    value = torch.randn(7, 3)
    advantage = ppo.generalised_advantages(reward, value[:-1], value[1:], torch.zeros(6, 3), 0.95, 1.0)
    returns = value[-1]
    for t in reversed(range(6)):
        returns = reward[t] + 0.95 * returns
    torch.testing.assert_close(advantage[0], returns - value[0])


def test_log_probability_divergence_and_entropy_are_those_of_torch():
    old_mean, new_mean, action = torch.randn(3, 7, 12)
    old_std, new_std = torch.rand(2, 12) + 0.1
    old = torch.distributions.Independent(torch.distributions.Normal(old_mean, old_std), 1)
    new = torch.distributions.Independent(torch.distributions.Normal(new_mean, new_std), 1)
    torch.testing.assert_close(ppo.gaussian_log_prob(action, old_mean, old_std), old.log_prob(action))
    torch.testing.assert_close(
        ppo.gaussian_kl(old_mean, old_std, new_mean, new_std), torch.distributions.kl_divergence(old, new)
    )
    torch.testing.assert_close(ppo.entropy(old_std), old.entropy()[0])
    assert ppo.gaussian_kl(old_mean, old_std, old_mean, old_std).abs().max() < 1e-6


@pytest.mark.parametrize("function", [ppo.policy_loss, ppo.plain_policy_loss])
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),
        (0.5, 2.0, -1.0, True),
        (1.5, -2.0, 3.0, True),
        (0.5, -2.0, 1.6, False),
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, slope, function):
    # old mean 0, mean 1/2, deviation 1: the log-probability changes by a/2 - 1/8
    a = 2 * (math.log(ratio) + 0.125)
    mean = torch.full((1, 1, 1), 0.5, requires_grad=True)
    std = torch.ones(1, requires_grad=True)
    ours, clipped, kl = function(
        mean, std, torch.full((1, 1, 1), a), torch.zeros(1, 1, 1), torch.ones(1), torch.full((1, 1), advantage), 0.2
    )
    assert float(ours.detach()) == pytest.approx(loss, rel=1e-5)
    ours.backward()
    # inside the clip, d loss / d log_prob = -ratio * advantage; outside, the better side learns nothing
    gain = -ratio * advantage if slope else 0.0
    assert float(mean.grad) == pytest.approx(gain * (a - 0.5), rel=1e-4)
    assert float(std.grad) == pytest.approx(gain * ((a - 0.5) ** 2 - 1), rel=1e-4)
    assert float(clipped) == (abs(ratio - 1) > 0.2)
    assert float(kl) == pytest.approx(0.125, rel=1e-5)


def test_learning_rate_follows_the_divergence_within_its_bounds():
    cfg = PPOCfg(target_kl=0.01, min_learning_rate=1e-5, max_learning_rate=1e-2)
    assert ppo.adapt_learning_rate(1e-3, 0.03, cfg) == pytest.approx(1e-3 / 1.5)
    assert ppo.adapt_learning_rate(1e-3, 0.002, cfg) == pytest.approx(1.5e-3)
    assert ppo.adapt_learning_rate(1e-3, 0.01, cfg) == 1e-3
    low = 1e-3
    high = 1e-3
    for _ in range(50):
        low = ppo.adapt_learning_rate(low, 1.0, cfg)
        high = ppo.adapt_learning_rate(high, 0.0, cfg)
    assert low == 1e-5
    assert high == 1e-2
    assert ppo.adapt_learning_rate(0.5, 9.0, PPOCfg(target_kl=0.0)) == 0.5


# The engine


def engine(n=64, threads=1, precision="float32", task="quadruped-balance", **changes):
    """Return an engine whose policy does more than a new one."""
    cfg = override(
        dataclasses.replace(preset(task), network=SMALL),
        {"env.max_episode_seconds": 0.3, "ppo.rollout": 24, **changes},
    )
    env = registry.make(cfg.task, num_envs=n, cfg=cfg.env, threads=1)
    creature = Creature(env, cfg.network, cfg.world_model)
    creature.use_precision(precision)
    made = TrainingEngine(env, creature, cfg, CPU, threads)
    with torch.no_grad():
        made.belief.policy.normal_(0, 0.3)
    return made


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.parameters])


def recorded(made):
    """Return the list of gradients that an engine would step along, which it does not."""
    gradients = []
    made.descent = None
    made.step = gradients.append
    return gradients


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("threads", [1, 2])
def test_replayed_actions_are_the_collected_ones(threads, precision, tolerance):
    made = engine(80, threads, precision, **{"ppo.minibatches": 1})
    assert [worker.env.num_envs for worker in made.workers] == ([80] if threads == 1 else [32, 48])
    for _ in range(2):
        for worker, r in zip(made.workers, made.collect_trajectory(), strict=True):
            assert r.starts[1:].any()
            mean, after = made.belief.evaluate(r.obs[:-1], r.state.belief, r.starts[:-1])
            torch.testing.assert_close(mean, r.mean, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(after[1], worker.infer.memory.belief[1], rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(
                (r.action - r.mean).flatten().std(), made.belief.std().detach().mean(), rtol=0.05, atol=0
            )
            forgotten = made.belief.evaluate(r.obs[:-1], r.state.belief, torch.zeros_like(r.starts[:-1]))[0]
            assert (forgotten - r.mean).abs().max() > 1e-3
            worker.estimate()
            average = worker.experience.advantage.mean()
            std = worker.experience.advantage.std()
            metrics = by_autograd(made.belief, made.cfg.ppo, worker.experience.scaled(average, std), made.parameters)[1]
            assert float(metrics["kl"]) == pytest.approx(0, abs=tolerance**1.2)
            assert metrics["clip_fraction"] < (1e-6 if precision == "float32" else 0.01)
            # of normalised advantages, whose mean is 0
            assert float(metrics["policy_loss"]) == pytest.approx(0, abs=10 * tolerance)
        made.train_on_trajectory()


def test_noise_is_another_for_every_robot_and_step():
    made = engine(64, 2)
    noise = torch.cat([((r.action - r.mean) / r.std).flatten(0, 1) for r in made.collect_trajectory()])
    assert len(torch.unique(noise, dim=0)) == 24 * 64
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


def test_ended_episodes_are_followed_by_their_final_value_or_nothing():
    made = engine(**{"env.fall_tilt": 0.15})
    (r,) = made.collect_trajectory()
    assert r.truncated.sum() > 2 * fused.WIDTH  # more than are valued at once
    assert r.terminated.sum() > 20
    assert not (r.truncated & r.terminated).any()
    (worker,) = made.workers
    worker.estimate()
    with torch.no_grad():
        values = made.belief.value(r.obs, r.privileged)
        final = made.belief.value(r.final_obs, r.final_privileged)
    torch.testing.assert_close(worker.experience.returns, values[:-1] + worker.experience.advantage)
    following = torch.where(r.truncated, final, torch.where(r.terminated, 0.0, values[1:]))
    delta = r.reward + made.cfg.ppo.gamma * following - values[:-1]
    ended = r.truncated | r.terminated
    torch.testing.assert_close(worker.experience.advantage[ended], delta[ended], rtol=1e-5, atol=1e-6)
    expected = torch.zeros_like(delta)
    last = torch.zeros(64)
    for t in reversed(range(24)):
        last = delta[t] + made.cfg.ppo.gamma * made.cfg.ppo.gae_lambda * torch.where(ended[t], 0.0, last)
        expected[t] = last
    torch.testing.assert_close(worker.experience.advantage, expected, rtol=1e-5, atol=1e-6)
    # the new episode's first value would have been another
    assert (final - values[1:])[r.truncated].abs().max() > 1e-3


def test_values_are_what_the_critic_has_learnt_by_then():
    made = engine()
    (worker,) = made.workers
    for _ in range(3):
        (r,) = made.collect_trajectory()
        worker.estimate()
        with torch.no_grad():
            values = made.belief.value(r.obs, r.privileged)
        x = worker.experience
        torch.testing.assert_close(x.returns - x.advantage, values[:-1], rtol=1e-5, atol=1e-5)
        made.train_on_trajectory()


def test_rollouts_go_on_where_the_last_one_ended():
    made = engine()
    (r,) = made.collect_trajectory()
    last = [x[-1].clone() for x in (r.obs, r.privileged, r.starts)]
    memory = made.workers[0].infer.memory
    (r,) = made.collect_trajectory()
    for was, now in zip(last, (r.obs[0], r.privileged[0], r.starts[0]), strict=True):
        assert torch.equal(was, now)
    assert torch.equal(r.state.belief[0], memory.belief[0])
    assert torch.equal(r.starts[1:], r.done())
    assert made.env_steps == 2 * 24 * 64


def test_first_update_is_no_step_off_the_policy():
    made = engine(threads=2, **{"ppo.minibatches": 1})
    made.collect_trajectory()
    metrics = made.train_on_trajectory()
    assert metrics["kl"] == pytest.approx(0, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-4)
    assert metrics["learning_rate"] == pytest.approx(
        min(1.5 * made.cfg.ppo.learning_rate, made.cfg.ppo.max_learning_rate)
    )


def joined(whole, parts):
    """Write the rollouts of parts into that of one which has all their robots."""
    for name, x in vars(whole).items():
        if isinstance(x, torch.Tensor) and x.dim() > 1:
            x.copy_(torch.cat([getattr(r, name) for r in parts], dim=1))
    whole.std.copy_(parts[0].std)
    whole.state = Memory.join([r.state for r in parts])


def test_shares_learn_together_what_one_learns_from_the_same_rollout():
    several = engine(96, 2, **{"ppo.minibatches": 1})
    one = engine(96, **{"ppo.minibatches": 1})
    one.creature.load_state_dict(several.creature.state_dict())
    several.collect_trajectory()
    parts = several.collect_trajectory()
    assert [worker.env.num_envs for worker in several.workers] == [32, 64]
    joined(one.workers[0].rollout, parts)
    gradients = [recorded(made) for made in (several, one)]
    metrics = [made.train_on_trajectory() for made in (several, one)]
    ((ours,), (theirs,)) = gradients
    assert theirs.norm() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for name in metrics[0]:
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4, abs=1e-6)
    for a, b in zip(several.belief.buffers(), one.belief.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(("robots", "threads"), [(96, 1), (192, 2), (288, 3)])
def test_steps_are_those_that_python_takes(robots, threads, broken, monkeypatch):
    whole = Experience.scaled

    def scaled(x, *moments):
        found = whole(x, *moments)
        if broken:
            found.advantage[0, 0] = math.nan  # of the first minibatch
        return found

    monkeypatch.setattr(Experience, "scaled", scaled)
    # too little divergence at first, then too much
    often = {"ppo.minibatches": 3, "ppo.epochs": 2, "ppo.target_kl": 1e-4, "ppo.max_learning_rate": 1e-2}
    compiled, by_python = (engine(robots, threads, **often) for _ in range(2))
    by_python.creature.load_state_dict(compiled.creature.state_dict())
    by_python.descent = None
    compiled.descend_with_python = None
    before = weights(compiled).clone()
    for made in (compiled, by_python):
        made.collect_trajectory()
    found = [made.train_on_trajectory() for made in (compiled, by_python)]
    assert compiled.learning_rate == pytest.approx(by_python.learning_rate)
    assert broken or compiled.learning_rate < 0.9 * compiled.cfg.ppo.learning_rate
    assert compiled.updates == by_python.updates == 6
    assert compiled.skipped == by_python.skipped == (2 if broken else 0)
    assert (weights(compiled) - before).norm() > 0.1
    torch.testing.assert_close(weights(compiled), weights(by_python), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(compiled.optimizer.moments(), by_python.optimizer.moments(), strict=True):
        assert torch.equal(ours["step"], theirs["step"]) and float(theirs["step"]) == 6 - compiled.skipped
        torch.testing.assert_close(ours["exp_avg"], theirs["exp_avg"], rtol=1e-3, atol=1e-5)
    for name in found[1]:
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4, abs=1e-6, nan_ok=True)


def test_the_number_of_threads_does_not_change_what_robots_do():
    made = engine(96, 3)
    parts = made.collect_trajectory()
    assert len(parts) == 3
    env = registry.make(made.cfg.task, num_envs=96, cfg=made.cfg.env, threads=1)
    state = env.init_state(made.cfg.seed + 1, staggered=True)
    memory = made.belief.initial_state(96)
    starts = torch.ones(96)
    for t in range(24):
        obs, mean, action, reward = (
            torch.cat([getattr(r, name)[t] for r in parts]) for name in ("obs", "mean", "action", "reward")
        )
        assert torch.equal(torch.from_numpy(state.obs), obs)
        _, ours, memory = made.belief.act(obs, memory, starts)
        assert torch.equal(ours, mean)
        state = env.step(action.numpy())
        assert np.array_equal(state.reward, reward)
        starts = torch.from_numpy(state.done).float()
    results = [evaluate(made.creature, env, 5, CPU, threads) for threads in (1, 2, 3)]
    assert results[0]["episodes"] == 96
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-5)
        assert all(result[name] == results[0][name] for name in ("survival", "mean_return", "episode_seconds"))


def test_one_thread_calls_functions_before_several_do(monkeypatch):
    """The first call of one is not safe in two threads at once; what that does shows in some processes alone."""
    monkeypatch.setattr(parallel, "_pool", None)
    monkeypatch.setattr(parallel, "_size", 0)
    called = []
    for name in ("exp", "log", "sqrt", "tanh"):
        plain = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda x, name=name, plain=plain: called.append((name, x.dtype)) or plain(x))
    before = parallel.side_by_side(lambda _: set(called), [0, 1])
    both = torch.float32, torch.float64
    assert before == 2 * [{(name, dtype) for name in ("exp", "log", "sqrt", "tanh") for dtype in both}]
    parallel.side_by_side(lambda _: None, [0, 1])
    assert len(called) == 8  # once


def test_every_robot_is_learned_from_once_in_a_pass(monkeypatch):
    made = engine(80, 2, **{"ppo.minibatches": 7, "ppo.epochs": 3})
    seen = {32: [], 48: []}

    def watched(gradients, x, robots):
        seen[x.returns.shape[1]].append(robots)
        return of(gradients, x, robots)

    of = Gradients.__call__
    monkeypatch.setattr(Gradients, "__call__", watched)
    made.iterate()
    for count, slices in seen.items():
        assert len(slices) == 3 * 7
        for epoch in range(3):
            robots = sorted(r for part in slices[7 * epoch : 7 * epoch + 7] for r in range(part.start, part.stop))
            assert robots == list(range(count))
    assert seen[32][:7] != seen[32][7:14]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("quadruped-balance", {}),
        ("quadruped-balance", {"network.symmetric": False}),
        ("quadruped-balance", {"world_model.role": "belief", "world_model.updates": 1}),
        ("quadruped-balance", {"network.attention": False}),
        ("quadruped-balance", {"network.recurrent": False}),
        ("quadruped-walk-stairs-seen", {"network.ground": 8}),
        (
            "quadruped-balance",
            {"network.attention": False, "network.recurrent": False, "world_model.role": "belief",
             "world_model.updates": 1},
        ),
    ],
)  # fmt: skip
def test_a_recorded_gradient_is_autograds(task, changes, precision):
    made = engine(64, precision=precision, task=task, **changes)
    made.collect_trajectory()
    made.train_on_trajectory()
    made.collect_trajectory()
    with torch.no_grad():
        made.belief.log_std[0] = -9.0  # below its bound: what it is does not matter
    (worker,) = made.workers
    worker.estimate()
    whole = worker.experience
    gradients = Gradients(made.belief, made.cfg.ppo, made.parameters)
    sizes = [p.numel() for p in made.parameters]
    for robots, change in (
        (slice(0, 32), 0.0), (slice(32, 64), 0.1), (slice(0, 64), 0.2), (slice(3, 7), 0.1), (slice(9, 10), 0.1)
    ):  # fmt: skip
        x = whole.of(robots)
        x = x._replace(mean=x.mean + change * torch.randn_like(x.mean), reached=torch.rand_like(x.returns))
        x = x.scaled(torch.tensor(0.2), torch.tensor(0.7))
        found, metrics = gradients(x)
        wanted, others = by_autograd(made.belief, made.cfg.ppo, x, made.parameters)
        assert found.shape == wanted.shape
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5
        for a, b in zip(found.split(sizes), wanted.split(sizes), strict=True):
            assert float((a - b).norm()) <= 1e-4 * float(b.norm())
        assert metrics.keys() == others.keys()
        for key, y in others.items():
            assert float(metrics[key]) == pytest.approx(float(y), rel=1e-5, abs=1e-7)
    assert len(gradients.recorded) == 4  # one for each shape


def test_autograd_finds_the_gradients_that_cannot_be_recorded():
    made = engine(64)
    made.collect_trajectory()
    (worker,) = made.workers
    worker.estimate()
    x = worker.experience.scaled(torch.tensor(0.0), torch.tensor(1.0))
    gradients = Gradients(made.belief, made.cfg.ppo, made.parameters)
    gradients(x.of(slice(0, 33)))
    gradients(x._replace(taught=x.mean, teacher=(x.std, torch.tensor(0.5))))
    assert not gradients.recorded
    gradients(x)
    assert gradients.recorded
    other = MLP(worker.env, SMALL)
    gradients = Gradients(other, made.cfg.ppo, list(other.parameters()))
    features = other.critic_features(torch.cat((x.obs, worker.rollout.privileged[:-1]), -1).flatten(0, 1))
    gradients(x._replace(memory=(), features=features.unflatten(-1, x.returns.shape)))
    assert not gradients.recorded


def test_experience_of_several_shares_is_learned_from_as_that_of_one():
    made = engine(96, 2)
    made.collect_trajectory()
    for worker in made.workers:
        worker.estimate()
    parts = [worker.experience for worker in made.workers]
    whole = Experience.join(parts)
    counts = [x.returns.shape[1] for x in parts]
    scale = whole.advantage.mean(), whole.advantage.std()
    together, expected = by_autograd(made.belief, made.cfg.ppo, whole.scaled(*scale), made.parameters)
    apart = [by_autograd(made.belief, made.cfg.ppo, x.scaled(*scale), made.parameters) for x in parts]
    torch.testing.assert_close(
        sum(n * g for n, (g, _) in zip(counts, apart, strict=True)) / sum(counts), together, rtol=1e-3, atol=1e-6
    )
    losses = [float(metrics["value_loss"]) for _, metrics in apart]
    assert float(expected["value_loss"]) == pytest.approx(np.average(losses, weights=counts), rel=1e-4)
    for got, expected in zip(whole.of(slice(counts[0], None)).tensors(), parts[1].tensors(), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("n", "threads", "changes"),
    [
        (37, 1, {"ppo.minibatches": 5}), (50, 2, {"ppo.minibatches": 64}), (3, 4, {}), (40, 1, {"ppo.rollout": 2}),
        (1, 1, {"ppo.rollout": 2}), (33, 2, {"ppo.minibatches": 1, "ppo.epochs": 2}),
    ],
)  # fmt: skip
def test_odd_numbers_of_robots_minibatches_and_steps_are_learned_from(n, threads, changes):
    made = engine(n, threads, **changes)
    before = weights(made)
    for _ in range(2):
        metrics = made.iterate()
    assert all(math.isfinite(x) for x in metrics.values())
    assert torch.isfinite(weights(made)).all()
    assert not torch.equal(weights(made), before)


@pytest.mark.parametrize("bound", [0.0, 1.5])
@pytest.mark.parametrize("role", ["off", "belief"])
@pytest.mark.parametrize(("n", "as_on_gpu"), [(24, True), (64, False)])
def test_inference_over_a_graphs_buffers_is_inference(n, as_on_gpu, role, bound):
    made = engine(n, **{"world_model.role": role})
    creature = Creature(made.env, dataclasses.replace(made.cfg.network, bound=bound), made.cfg.world_model)
    plain, recorded = (Inference(creature, n, 37, CPU) for _ in range(2))
    recorded.record()
    assert (recorded.graph is None) == as_on_gpu  # programs are of whole vectors of robots
    if as_on_gpu:  # a GPU's graph repeats step(); here it is called
        recorded.graph = types.SimpleNamespace(replay=recorded.step)
        recorded.device = torch.device("cuda")
    obs, noise = torch.randn(4, n, 37), torch.randn(4, n, 12)
    starts = torch.zeros(4, n)
    found, expected = torch.zeros(2, 2, 4, n, 12)
    context = [torch.zeros(4, *creature.context(plain.memory).shape) if creature.reads else None for _ in range(2)]
    recorded.begin(obs, starts, noise, *found, context[0])
    plain.begin(obs, starts, noise, *expected, context[1])
    for t in range(4):
        starts[t, : t + 1] = 1.0
        before = recorded.memory.copy()
        recorded(t)
        plain(t)
        assert torch.equal(found, expected)
        assert found[:, t].any() and not found[:, t + 1 :].any()
        if creature.reads:
            assert torch.equal(*context) and torch.equal(context[0][t], creature.context(plain.memory))
        for a, b in zip(plain.memory.tensors(), recorded.memory.tensors(), strict=True):
            assert torch.equal(a, b)
        assert not any(torch.equal(b, old) for b, old in zip(recorded.memory.belief, before.belief, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_does_what_its_steps_do():
    made = engine(n=24)
    cuda = torch.device("cuda")
    creature = made.creature.to(cuda)
    plain, recorded = (Inference(creature, 24, 37, cuda) for _ in range(2))
    recorded.record()
    assert not recorded.memory.belief[1].any()
    obs, noise = torch.randn(4, 24, 37), torch.randn(4, 24, 12, device=cuda)
    starts = (torch.rand(4, 24) < 0.2).float()
    found, expected = torch.zeros(2, 2, 4, 24, 12)
    recorded.begin(obs, starts, noise, *found)
    plain.begin(obs, starts, noise, *expected)
    for t in range(4):
        recorded(t)
        plain(t)
        torch.testing.assert_close(found, expected)


def test_broken_gradients_take_no_step():
    made = engine(threads=2)
    made.collect_trajectory()
    before = weights(made)
    reward = made.workers[1].rollout.reward
    reward[3, 5] = math.nan
    made.train_on_trajectory()
    assert torch.equal(weights(made), before)
    assert not any(moments["exp_avg"].any() for moments in made.optimizer.moments())
    reward[3, 5] = 0.0
    made.train_on_trajectory()
    assert not torch.equal(weights(made), before)
    assert torch.isfinite(weights(made)).all()


def flats(made):
    return made.optimizer.vectors


def test_gradients_of_policy_and_critic_are_clipped_apart_and_the_critics_steps_are_longer():
    made = engine(**{"ppo.max_gradient_norm": 2.0, "ppo.critic_rate": 4.0})
    policy, critic = (torch.randn_like(flat) for flat in flats(made))
    before = [flat.detach().clone() for flat in flats(made)]
    made.step(torch.cat((100 * policy, 0.01 * critic / critic.norm())))
    cut = 2 * policy / policy.norm(), 0.01 * critic / critic.norm()
    for moments, expected in zip(made.optimizer.moments(), cut, strict=True):
        torch.testing.assert_close(10.0 * moments["exp_avg"], expected)  # after one step
    # Adam's first step is as long as the learning rate
    lengths = [float((flat.detach() - old).abs().median()) for flat, old in zip(flats(made), before, strict=True)]
    assert lengths[0] == pytest.approx(made.learning_rate, rel=0.1)
    assert lengths[1] == pytest.approx(4 * made.learning_rate, rel=0.2)


def test_parameters_are_views_of_two_vectors_and_stay_so():
    made = engine()
    other = engine()
    made.creature.load_state_dict(other.creature.state_dict())
    made.iterate()
    assert torch.equal(weights(made), torch.cat([flat.detach() for flat in flats(made)]))
    assert {p.untyped_storage().data_ptr() for p in made.parameters} == {
        flat.untyped_storage().data_ptr() for flat in flats(made)
    }


def test_levels_grow_from_first_to_last_unless_robots_fall_too_often():
    made = engine(
        **{
            "curriculum.push": (0.5, 1.2),
            "curriculum.command": (1.0, 1.1),
            "curriculum.growth": 0.4,
            "curriculum.falls": 2.0,
            "curriculum.push_rate": 3.0,
            "curriculum.episode_rate": 3.0,
        }
    )
    seen = [made.levels]
    for falls in (2.1, 1.9, 0.0, 9.0, 0.0):
        made.grow(falls)
        seen.append(made.levels)
        level, command, rate, steps = (
            made.env.settings[made.env.composed.settings[name]]
            for name in ("push_level", "command_level", "push_rate", "max_episode_steps")
        )
        assert (level, command) == pytest.approx(made.levels)
        assert rate == 3.0
        assert steps == 5  # of 15
    assert seen == [
        pytest.approx(pair) for pair in [(0.5, 1.0), (0.5, 1.0), (0.9, 1.1), (1.2, 1.1), (1.2, 1.1), (1.2, 1.1)]
    ]


def test_training_resumes_from_a_checkpoint_where_it_was(tmp_path):
    made = engine()
    for _ in range(2):
        made.iterate()
    checkpoint.save(tmp_path / "c.pt", made.creature, made.cfg, {}, made.trainer_state())
    loaded = checkpoint.load(tmp_path / "c.pt")
    again = TrainingEngine(made.env, loaded.creature(made.env), loaded.config, CPU)
    again.load_trainer_state(loaded.trainer, "c.pt")
    assert torch.equal(weights(again), weights(made))
    assert again.learning_rate == made.learning_rate
    gradient = torch.randn_like(weights(made))
    for each in (made, again):
        each.step(gradient)
    assert torch.equal(weights(again), weights(made))
    for a, b in zip(made.belief.buffers(), again.belief.buffers(), strict=True):
        assert torch.equal(a, b)


def test_who_is_evaluated_and_kept_is_the_average_of_the_latest(tmp_path):
    made = engine(**{"ppo.average": 4})
    expected = made.average.value.clone()
    for _ in range(3):
        made.iterate()
        expected += (flats(made)[0].detach() - expected) / 4
    learnt = weights(made)
    trainer = made.trainer_state()
    with pytest.raises(ValueError, match="no room"), made.acting():
        assert torch.allclose(flats(made)[0], expected, atol=1e-6)
        assert (weights(made) - learnt).abs().max() > 1e-4
        checkpoint.save(tmp_path / "c.pt", made.creature, made.cfg, {}, trainer)
        raise ValueError("no room")
    assert torch.equal(weights(made), learnt)

    loaded = checkpoint.load(tmp_path / "c.pt")
    for average in (4, 1):
        cfg = override(loaded.config, {"ppo.average": average})
        again = TrainingEngine(made.env, loaded.creature(made.env), cfg, CPU)
        assert torch.allclose(flats(again)[0], expected, atol=1e-6)
        again.load_trainer_state(loaded.trainer, "c.pt")
        assert torch.equal(weights(again), learnt)
        assert torch.equal(again.average.value, made.average.value)
    del trainer["policy"]  # of a training that averaged nothing
    again.load_trainer_state(trainer, "c.pt")
    assert torch.equal(weights(again), learnt)


def test_an_iteration_is_undone_in_the_average_too():
    made = engine(**{"ppo.average": 4})
    guard = Guard(made)
    assert not guard.look(made.iterate())
    kept = made.average.value.clone()
    metrics = made.iterate()
    assert not torch.equal(made.average.value, kept)
    assert "divergence" in guard.look(metrics | {"kl": 1e9})
    assert torch.equal(made.average.value, kept)


@pytest.mark.parametrize(("until", "changes"), [(0, [True, True, True]), (2 * 24 * 16, [True, True, False])])
def test_the_scale_of_observations_is_learnt_in_so_many_steps_and_then_stays(until, changes):
    made = engine(16, **{"ppo.scale_until": until})
    found = []
    for _ in changes:
        before = made.belief.normaliser.mean.clone(), made.belief.body_encoder.shift.clone()
        made.iterate()
        after = made.belief.normaliser.mean, made.belief.body_encoder.shift
        assert len({torch.equal(a, b) for a, b in zip(before, after, strict=True)}) == 1
        found.append(not torch.equal(before[0], after[0]))
    assert found == changes


def test_warming_up_leaves_no_trace():
    made = engine(threads=2)
    cold = engine(threads=2)
    cold.creature.load_state_dict(made.creature.state_dict())
    made.warm_up()
    for each in (made, cold):
        each.iterate()
    assert torch.equal(weights(made), weights(cold))


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_same_weights(threads):
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        made = engine(64, threads)
        for _ in range(3):
            metrics = made.iterate()
        results.append((weights(made), metrics["reward"]))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
