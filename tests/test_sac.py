"""Soft actor-critic: what is asked for instead, what is kept of it, and what is learnt from it."""

import copy
import io

import numpy as np
import pytest
import torch
from rich.console import Console

from config import Config
from entity import Creature
from environments import registry
from settings import ConfigError, override
from training.display import Display
from training.engine import TrainingEngine
from training.guard import Guard
from training.presets import preset

CPU = torch.device("cpu")
SMALL = {
    "train.num_envs": 16, "sac.updates": 4, "sac.batch": 8, "sac.patience": 2, "sac.capacity": 4, "sac.others": 3,
    "sac.hidden": 64,
}  # fmt: skip


def engine(task="quadruped-walk-flat", threads=1, **changes):
    cfg = override(preset(task, learner="sac"), SMALL | {name.replace("__", "."): x for name, x in changes.items()})
    torch.manual_seed(0)
    env = registry.make(cfg.task, num_envs=cfg.train.num_envs, cfg=cfg.env, threads=threads)
    made = TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, CPU, threads)
    env.init_state(0)
    return made


def test_rewards_under_another_command_are_those_of_a_robot_that_was_given_it():
    env, other = (registry.make("quadruped-walk-flat", num_envs=48, threads=1) for _ in range(2))
    random = np.random.default_rng(0)
    for each in (env, other):
        each.init_state(3, staggered=True)
    differ = 0
    for _ in range(40):
        actions = random.normal(size=(48, 12)).astype(np.float32)
        own, asked = env.command(), random.uniform(-1.0, 1.0, (48, 3)).astype(np.float32)
        other.restore(copy.deepcopy(env.snapshot()))
        other.set_field("command", asked)
        state, would_be = env.step(actions), other.step(actions)
        goes_on = ~(state.done | would_be.done)
        own_again, instead = env.rewards_under(np.stack((own, asked)))
        np.testing.assert_array_equal(own_again[goes_on], state.reward[goes_on])
        np.testing.assert_array_equal(instead[goes_on], would_be.reward[goes_on])
        differ += (own_again != instead)[goes_on].sum()
    assert differ > 1000


def test_asking_leaves_no_trace():
    env, other = (registry.make("quadruped-walk-flat", num_envs=16, threads=1) for _ in range(2))
    actions = np.random.default_rng(0).normal(size=(30, 16, 12)).astype(np.float32)
    for each in (env, other):
        each.init_state(1)
    for action in actions:
        one, two = env.step(action), other.step(action)
        env.rewards_under(np.ones((2, 16, 3), np.float32))
        np.testing.assert_array_equal(one.obs, two.obs)
        np.testing.assert_array_equal(one.reward, two.reward)


@pytest.mark.parametrize(
    ("task", "known"),
    [
        ("quadruped-walk-flat", True),
        ("quadruped-walk-rough", True),  # towards a heading, too
        ("quadruped-gaits", False),  # rewards tell of phases, which have moved on
        ("quadruped-balance", False),
        ("cartpole", False),
    ],
)
def test_who_is_asked(task, known):
    env = registry.make(task, num_envs=2, threads=1)
    env.init_state(0)
    shown = env.command_columns
    assert shown.stop - shown.start == env.command().shape[1] == (3 if known else 0)
    if known:
        np.testing.assert_allclose(
            env.step(np.zeros((2, 12))).obs[:, shown], env.command() * [2.0, 2.0, 1.0], rtol=1e-6
        )
    else:
        with pytest.raises(NotImplementedError):
            env.rewards_under(np.zeros((1, 2, 3), np.float32))


def test_what_is_drawn_is_what_happened_or_would_have_been_rewarded():
    made = engine(env__max_episode_seconds=0.5)
    sac = made.sac
    kept = []
    for _ in range(6):  # more than there is room for
        made.collect_trajectory()
        (worker,) = made.workers
        r = worker.rollout
        sac.replay.add_all([r])
        x = torch.cat((r.obs, r.privileged), -1)
        memory = r.state.belief
        copies = (
            x,
            r.starts,
            r.action,
            r.reward,
            r.terminated,
            r.truncated,
            r.others_shown.transpose(0, 1),
            r.others_reward,
            *memory,
        )
        kept.append([y.clone() for y in copies])
    kept = kept[-4:]
    shown = made.env.command_columns
    generator = torch.Generator().manual_seed(0)
    lived = sac.replay.live(64, 0.5, generator)
    terminated = 0
    for b in range(64):
        found = None
        for x, starts, action, reward, fell, late, others, others_reward, *memory in kept:
            for n in range(16):
                if torch.equal(lived.action[:, b], action[:, n]):
                    found = x[:, n].clone(), starts[:, n], reward[:, n], fell[:, n], late[:, n], others[n]
                    would_be = torch.where((fell | late)[:, n, None], reward[:, n, None], others_reward[:, n])
                    assert all(torch.equal(y[..., b], z[..., n]) for y, z in zip(lived.memory, memory, strict=True))
        x, starts, reward, fell, late, others = found
        if b < 32:
            k = next(
                k
                for k in range(3)
                if torch.equal(lived.everything[0, b, shown], others[k])
                and torch.equal(lived.reward[:, b], would_be[:, k])
            )
            x[:, shown] = others[k]
            reward = would_be[:, k]
        assert torch.equal(lived.everything[:, b], x)
        assert torch.equal(lived.reward[:, b], reward)
        assert torch.equal(lived.starts[:, b], starts)
        assert torch.equal(lived.terminated[:, b] > 0, fell)
        assert torch.equal(lived.known[:, b] == 0, late & ~fell)
        terminated += int((fell | late).sum())
    assert terminated > 10


def test_the_first_rollout_asks_for_nothing_else_and_later_ones_for_what_was_asked():
    made = engine(curriculum__command_rate=0.01)  # commands stay what they are
    (worker,) = made.workers
    for i in range(4):
        made.collect_trajectory()
        r = worker.rollout
        made.sac.replay.add_all([r])
        own = r.obs[0, :, made.env.command_columns]
        goes_on = r.done().cumsum(0) == 0.0
        same = (r.others_reward == r.reward[..., None]).all(-1)
        if not i:
            assert torch.equal(r.others_shown, own.expand_as(r.others_shown))
            assert same[goes_on].all()
        else:
            assert not same[goes_on].all()
            np.testing.assert_allclose(r.others * torch.tensor([2.0, 2.0, 1.0]), r.others_shown, rtol=1e-6)


def test_what_the_policy_would_have_remembered_is_found_anew():
    made = engine(env__max_episode_seconds=0.5)
    replay = made.sac.replay
    for _ in range(6):
        made.collect_trajectory()
        replay.add_all([made.workers[0].rollout])
    before = replay.latent.clone()
    assert before[:, 0, replay.sizes[0] + 1 :].abs().max() > 0.01
    replay.remember(made.belief)  # as it was remembered
    torch.testing.assert_close(replay.latent, before, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        made.sac.policy *= 1.5
    replay.remember(made.belief)
    size = replay.sizes[0] + 1
    oldest, i = (replay.count - 4) % 4, (replay.count - 3) % 4
    assert torch.equal(replay.latent[:, :, :size], before[:, :, :size])  # what was seen stays
    assert torch.equal(replay.latent[oldest], before[oldest])
    _, _, *stored = before[oldest, 0].split(replay.sizes)
    memory = tuple(x.unflatten(0, kind) for x, kind in zip(stored, replay.kinds, strict=True))
    start = before[oldest, 0, size - 1]
    obs = before[oldest, 0, : made.env.num_obs].T
    for t in range(16):
        _, _, memory = made.belief.act(obs.contiguous(), memory, start)
        obs, start = replay.obs[oldest, t, :, : made.env.num_obs], 1.0 - replay.keep[oldest, t]
    found = torch.cat([x.flatten(0, -2) for x in memory])
    torch.testing.assert_close(replay.latent[i, 0, size:], found, rtol=1e-3, atol=1e-4)
    assert (found - before[i, 0, size:]).abs().max() > 0.01


def test_an_action_is_worth_its_reward_and_what_the_policy_expects():
    made = engine()
    sac = made.sac
    for _ in range(3):
        made.iterate()
    lived = sac.live(0)
    lived = lived._replace(
        terminated=(torch.rand(lived.reward.shape) < 0.2).float(), known=(torch.rand(lived.reward.shape) < 0.8).float()
    )
    start = torch.Generator().manual_seed(5)
    found, metrics = sac.critics_gradient(lived, start)
    again = torch.Generator().manual_seed(5)
    with torch.no_grad():
        action, density = sac.act(lived, again)
    mirrored = sac.toss(16 * 8, again).view(16, 8)
    standard = sac.values.standardise(lived.everything)
    assert 32 < mirrored.sum() < 96
    total = 0.0
    for t in range(16):
        for b in range(8):
            with torch.no_grad():
                after = sac.target.mean(standard[t + 1, b : b + 1], action[t + 1, b : b + 1], mirrored[t, b : b + 1])
                worth = 10.0 * lived.reward[t, b]
                if not lived.terminated[t, b]:
                    worth = worth + 0.985 * (after.min() - sac.weight.exp() * density[t + 1, b])
            logits = sac.values(standard[t, b : b + 1], lived.action[t, b : b + 1], mirrored[t, b : b + 1])
            found_shares = logits.exp() / logits.exp().sum(-1, keepdim=True)
            total = total - lived.known[t, b] * (sac.values.shares(worth) * found_shares.log()).sum() / (16 * 8)
    assert float(total.detach()) == pytest.approx(float(metrics["value_loss"]), rel=1e-3)
    expected = sac.flat(torch.autograd.grad(total.sum(), sac.parameters))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


def test_the_policy_climbs_what_critics_say():
    made = engine()
    sac = made.sac
    for _ in range(3):
        made.iterate()
    lived = sac.live(0)
    before = float(sac.policy_gradient(lived, torch.Generator().manual_seed(1))[1]["policy_loss"])
    for _ in range(20):
        gradient, _ = sac.policy_gradient(lived, torch.Generator().manual_seed(1))
        with torch.no_grad():
            sac.policy -= 0.01 * gradient[:-1] / gradient[:-1].norm()
    after = float(sac.policy_gradient(lived, torch.Generator().manual_seed(1))[1]["policy_loss"])
    assert after < before - 1e-3


def test_who_looks_in_the_mirror_sees_the_image():
    made = engine()
    env, values = made.env, made.sac.values
    x, a = torch.randn(5, env.num_obs + env.num_privileged), torch.randn(5, 12)
    image, other = (of(y) for of, y in zip(values.mirrors, (x, a), strict=True))
    yes, no = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    torch.testing.assert_close(values(x, a, yes), values(image, other, no))
    assert (values(x, a, no) - values(x, a, yes)).abs().amax(-1).min() > 1e-4


def test_two_threads_learn_what_one_does():
    one = engine()
    for _ in range(2):
        one.iterate()
    start = copy.deepcopy(one.sac.state()), [x.clone() for x in (one.sac.policy, *one.sac.networks())]
    moments = copy.deepcopy(one.sac.optimizer.moments())
    results = []
    for both in (False, True):
        one.sac.load_state(start[0])
        for x, kept in zip((one.sac.policy, *one.sac.networks()), start[1], strict=True):
            x.detach().copy_(kept)
        one.sac.optimizer.load_moments(moments)
        one.sac.both = both
        for _ in range(3):
            one.sac.lesson()
        results.append([x.detach().clone() for x in (one.sac.policy, *one.sac.networks())])
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
    assert not torch.equal(results[0][0], start[1][0])


def test_actions_stay_within_the_bound():
    made = engine(network__bound=0.5)
    belief = made.belief
    with torch.no_grad():
        belief.policy_bias += 10.0
    action, mean, _ = belief.act(torch.randn(3, belief.num_obs), belief.initial_state(3), noise=torch.randn(3, 12))
    for x in action, mean:
        assert 0.49 < x.abs().max() <= 0.5


def test_the_density_is_that_of_the_actions():
    """The integral of the density over all actions of one joint is 1."""
    made = engine(network__bound=0.5)
    x = torch.linspace(-3.0, 3.0, 200_001, dtype=torch.float64)
    slope = 1.0 - torch.tanh(x / 0.5).square()
    normal = torch.distributions.Normal(0.3, 0.4).log_prob(x)
    assert float(torch.trapezoid((normal - slope.log()).exp(), 0.5 * torch.tanh(x / 0.5))) == pytest.approx(
        1.0, rel=1e-3
    )
    for _ in range(3):
        made.iterate()
    lived = made.sac.live(0)
    action, density = made.sac.act(lived, torch.Generator().manual_seed(5))
    mean, _ = made.belief.evaluate(lived.everything[..., : made.env.num_obs], lived.memory, lived.starts)
    unbounded = 0.5 * torch.atanh((action.double() / 0.5).clamp(-1.0 + 1e-12, 1.0 - 1e-12))
    expected = torch.distributions.Normal(mean.double(), made.belief.std().double()).log_prob(unbounded)
    expected = (expected - (1.0 - (action.double() / 0.5).square() + 1e-4).log()).sum(-1)
    inside = (action.abs() < 0.499).all(-1)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(density.double()[inside], expected[inside], rtol=1e-2, atol=0.05)


def test_what_is_not_finite_is_left_out():
    made = engine()
    for _ in range(3):
        made.iterate()
    sac = made.sac
    sac.replay.reward.fill_(float("nan"))
    sac.replay.others_reward.fill_(float("nan"))
    before = sac.critics.detach().clone()
    skipped = sac.skipped
    sac.lesson()
    assert sac.skipped == skipped + 2  # of the critics
    assert torch.equal(before, sac.critics)


def test_rollouts_before_anything_is_learnt_are_no_failure():
    made = engine(sac__patience=3)
    guard = Guard(made)
    policy = made.sac.policy.detach().clone()
    for i in range(4):
        metrics = made.iterate()
        assert guard.look(metrics) == ""
        assert ("value_loss" in metrics) == (i >= 2) == (not torch.equal(policy, made.sac.policy))
    made.sac.replay.reward.fill_(float("nan"))
    made.sac.replay.others_reward.fill_(float("nan"))
    assert "value loss was not finite" in guard.look(made.iterate())


@pytest.mark.parametrize(
    ("field", "value"), [("world_model.role", "imagination"), ("teacher.policy", "quadruped-walk-rough")]
)
def test_what_goes_with_ppo_alone(field, value):
    with pytest.raises(ConfigError, match=r"train\.learner: expected ppo with"):
        override(Config(), {"train.learner": "sac", field: value})


def test_a_histogram_tells_its_value():
    values = engine().sac.values
    told = torch.tensor((-30.0, -20.0, -7.3, 0.0, 0.4, 55.5, 119.0, 500.0))
    shares = values.shares(told)
    torch.testing.assert_close(shares.sum(-1), torch.ones(8))
    inside = slice(2, 6)
    torch.testing.assert_close(shares[inside] @ values.centres, told[inside], rtol=0.0, atol=1e-3)
    width = 140.0 / 101
    distance = (shares[inside] @ values.centres.square() - told[inside].square()).sqrt() / width
    # of the normal distribution, and of values within a bin
    torch.testing.assert_close(distance, torch.full((4,), (0.75**2 + 1 / 12) ** 0.5), rtol=1e-2, atol=0.0)
    assert torch.equal(shares[0], shares[1]) and shares[0, 0] > 0.5 and shares[7, -1] > 0.5
    x, a = torch.randn(64, values.weights[0].shape[1] - 12), torch.randn(64, 12)
    before = values.mean(x, a, torch.zeros(64, dtype=torch.bool))
    assert before.shape == (2, 64) and before.abs().max() < 3.0


def test_values_that_do_not_fit_the_histogram_are_told():
    made = engine(sac__values=(-1e-3, 1e-3))
    metrics = [made.iterate() for _ in range(3)][-1]
    assert metrics["values_outside"] > 0.9
    console = Console(file=io.StringIO(), width=200)
    Display(5, console).update({"iteration": 1} | metrics)
    assert "outside sac.values 100%" in console.file.getvalue()
    for wrong in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ConfigError, match=r"sac\.values: expected"):
            override(Config(), {"sac.values": wrong})
