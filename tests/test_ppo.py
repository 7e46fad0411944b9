"""Proximal policy optimisation against arithmetic by hand and torch.distributions."""

import math

import pytest
import torch

from config import Config, NetworkCfg, PPOCfg, override
from entity import Creature
from environments import registry
from training import ppo
from training.engine import TrainingEngine

CPU = torch.device("cpu")
SMALL = NetworkCfg(heads=1, head_size=4, encoder=8, lstm=8, critic=8)
GAMMA, LAMBDA = 0.9, 0.8


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_advantages_of_an_unbroken_episode_by_hand():
    # values 1, 2, 3 and 4 after the last step
    advantage = ppo.generalised_advantages(column(1, 0, 2), column(1, 2, 3), column(2, 3, 4), column(0, 0, 0), GAMMA, LAMBDA)
    third = 2 + 0.9 * 4 - 3  # 2.6
    second = 0 + 0.9 * 3 - 2 + 0.72 * third  # 2.572
    first = 1 + 0.9 * 2 - 1 + 0.72 * second
    torch.testing.assert_close(advantage, column(first, second, third))
    assert third == pytest.approx(2.6)
    assert first == pytest.approx(3.65184)


@pytest.mark.parametrize(("next_value", "delta"), [(0.0, 0.0 - 2), (5.0, 0 + 0.9 * 5 - 2)])
def test_nothing_flows_over_the_end_of_an_episode(next_value, delta):
    # the second step ends it: terminated (nothing follows) or truncated (a final observation worth 5)
    advantage = ppo.generalised_advantages(column(1, 0, 2), column(1, 2, 3), column(2, next_value, 4), column(0, 1, 0), GAMMA, LAMBDA)
    torch.testing.assert_close(advantage, column(1 + 0.9 * 2 - 1 + 0.72 * delta, delta, 2.6))
    other = ppo.generalised_advantages(column(1, 0, 99), column(1, 2, -99), column(2, next_value, 99), column(0, 1, 0), GAMMA, LAMBDA)
    torch.testing.assert_close(other[:2], advantage[:2])


def test_advantages_without_decay_are_returns_less_values():
    reward, value = torch.randn(6, 3), torch.randn(7, 3)
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
    torch.testing.assert_close(ppo.gaussian_kl(old_mean, old_std, new_mean, new_std), torch.distributions.kl_divergence(old, new))
    torch.testing.assert_close(ppo.entropy(old_std), old.entropy()[0])
    assert ppo.gaussian_kl(old_mean, old_std, old_mean, old_std).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [(1.1, 2.0, -2.2, True), (1.5, 2.0, -2.4, False), (0.5, 2.0, -1.0, True), (1.5, -2.0, 3.0, True), (0.5, -2.0, 1.6, False)],
)
def test_policy_loss_by_hand(ratio, advantage, loss, slope):
    log_prob = torch.tensor([math.log(ratio) - 3.0], requires_grad=True)
    ours, metrics = ppo.policy_loss(log_prob, torch.tensor([-3.0]), torch.tensor([advantage]), 0.2)
    assert float(ours.detach()) == pytest.approx(loss, rel=1e-5)
    ours.backward()
    # inside the clip, d loss / d log_prob = -ratio * advantage; outside, the better side learns nothing
    assert float(log_prob.grad) == pytest.approx(-ratio * advantage if slope else 0.0, rel=1e-5)
    assert float(metrics["clip_fraction"]) == (abs(ratio - 1) > 0.2)


@pytest.mark.parametrize(
    ("value", "clip", "loss"),
    [(1.1, 0.2, 0.5 * 0.9**2), (1.5, 0.2, 0.5 * 0.8**2), (1.5, 0.0, 0.5 * 0.5**2), (0.0, 0.2, 0.5 * 2.0**2), (3.0, 0.2, 0.5 * 1.0**2)],
)
def test_value_loss_by_hand(value, clip, loss):
    # the old value is 1, the return 2
    ours, metrics = ppo.value_loss(torch.tensor([value]), torch.tensor([1.0]), torch.tensor([2.0]), clip)
    assert float(ours) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["value_loss"]) == float(ours)


def test_learning_rate_follows_the_divergence_within_its_bounds():
    cfg = PPOCfg(target_kl=0.01, min_learning_rate=1e-5, max_learning_rate=1e-2)
    assert ppo.adapt_learning_rate(1e-3, 0.03, cfg) == pytest.approx(1e-3 / 1.5)
    assert ppo.adapt_learning_rate(1e-3, 0.002, cfg) == pytest.approx(1.5e-3)
    assert ppo.adapt_learning_rate(1e-3, 0.01, cfg) == 1e-3
    low = high = 1e-3
    for _ in range(50):
        low, high = ppo.adapt_learning_rate(low, 1.0, cfg), ppo.adapt_learning_rate(high, 0.0, cfg)
    assert low == 1e-5
    assert high == 1e-2
    assert ppo.adapt_learning_rate(0.5, 9.0, PPOCfg(target_kl=0.0)) == 0.5


def engine(n=64, **changes):
    cfg = override(Config(network=SMALL), {"env.episode_seconds": 0.3, "ppo.rollout": 24, **changes})
    env = registry.make(cfg.task, n, cfg=cfg.env, threads=1)
    return TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, CPU)


def test_ended_episodes_are_followed_by_their_final_value_or_nothing():
    made = engine(**{"env.fall_tilt": 0.15})
    r = made.collect_trajectory()
    assert r.truncated.sum() > 20
    assert r.terminated.sum() > 20
    assert not (r.truncated & r.terminated).any()
    advantage, value = made.advantages(r)
    with torch.no_grad():
        values = made.belief.value(r.obs, r.privileged)
        final = made.belief.value(r.final_obs, r.final_privileged)
    torch.testing.assert_close(value, values[:-1])
    following = torch.where(r.truncated, final, torch.where(r.terminated, 0.0, values[1:]))
    delta = r.reward + made.cfg.ppo.gamma * following - values[:-1]
    ended = r.truncated | r.terminated
    torch.testing.assert_close(advantage[ended], delta[ended])
    expected, last = torch.zeros_like(delta), torch.zeros(64)
    for t in reversed(range(24)):
        last = delta[t] + made.cfg.ppo.gamma * made.cfg.ppo.gae_lambda * torch.where(ended[t], 0.0, last)
        expected[t] = last
    torch.testing.assert_close(advantage, expected)
    # the new episode's first value would have been another
    assert (final - values[1:])[r.truncated].abs().max() > 1e-3


def test_rollouts_go_on_where_the_last_one_ended():
    made = engine()
    r = made.collect_trajectory()
    last = [x[-1].clone() for x in (r.obs, r.privileged, r.starts)]
    memory = made.memory
    r = made.collect_trajectory()
    for was, now in zip(last, (r.obs[0], r.privileged[0], r.starts[0]), strict=True):
        assert torch.equal(was, now)
    assert torch.equal(r.state.hidden, memory.hidden)
    assert torch.equal(r.starts[1:], r.done())
    assert made.env_steps == 2 * 24 * 64


def test_first_update_is_no_step_off_the_policy():
    made = engine(**{"ppo.minibatches": 1})
    r = made.collect_trajectory()
    metrics = made.train_on_trajectory(r)
    assert metrics["kl"] == pytest.approx(0, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    # of normalised advantages, whose mean is 0
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-4)
    assert metrics["learning_rate"] == pytest.approx(min(1.5 * made.cfg.ppo.learning_rate, made.cfg.ppo.max_learning_rate))


def test_broken_gradients_take_no_step():
    made = engine()
    r = made.collect_trajectory()
    r.reward[3, 5] = math.nan
    before = [p.clone() for p in made.belief.parameters()]
    made.train_on_trajectory(r)
    for was, now in zip(before, made.belief.parameters(), strict=True):
        assert torch.equal(was, now)


def test_same_seed_same_weights():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        made = engine(n=32)
        for _ in range(3):
            metrics = made.iterate()
        results.append((torch.cat([p.detach().flatten() for p in made.belief.parameters()]), metrics["reward"]))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
