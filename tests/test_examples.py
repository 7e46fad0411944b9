"""The example that trains with stable-baselines3, and its adapter."""

import re
import runpy
import sys

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import gymnasium
import torch
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import VecMonitor

from environments import registry
from environments.gymnasium import GymVectorEnv
from examples import stable_baselines3 as example

N = 40  # more than a block, not a multiple of one


@pytest.fixture(autouse=True)
def one_thread(threads_as_before):
    torch.set_num_threads(1)


def adapter(staggered=True):
    env = registry.make("navigation", num_envs=N, env_cfg_override={"max_episode_seconds": 1.0})
    return example.FoalVecEnv(GymVectorEnv(env, 3, example.ACTION_LIMIT), staggered)


@pytest.mark.parametrize("staggered", [True, False])
def test_the_adapter_does_what_the_environment_does(staggered):
    env = adapter(staggered)
    plain = registry.make("navigation", num_envs=N, env_cfg_override={"max_episode_seconds": 1.0})
    assert np.array_equal(env.reset(), plain.init_state(3, staggered).obs)
    random = np.random.default_rng(0)
    ends = []
    for _ in range(25):
        actions = random.uniform(-1, 1, (N, 3)).astype(np.float32)
        obs, rewards, dones, infos = env.step(actions)
        state = plain.step(actions)
        assert np.array_equal(obs, state.obs)
        assert np.array_equal(rewards, state.reward)
        assert np.array_equal(dones, state.done)
        assert [bool(info) for info in infos] == dones.tolist()
        for i in np.flatnonzero(dones):
            assert infos[i]["TimeLimit.truncated"]
            assert np.array_equal(infos[i]["terminal_observation"], state.info["final_obs"][i])
        ends.append(dones.sum())
    assert (max(ends) < N) == staggered
    assert sum(ends) >= N


def test_a_seed_gives_the_adapter_the_same_episodes():
    env = adapter()
    env.seed(5)
    first = env.reset()
    other = env.reset()
    env.seed(5)
    assert np.array_equal(env.reset(), first)
    assert not np.array_equal(other, first)


def test_wrappers_of_stable_baselines_understand_the_adapter():
    env = VecMonitor(adapter(staggered=False))
    env.reset()
    steps = [env.step(np.zeros((N, 3), np.float32)) for _ in range(20)]
    assert [info["episode"]["l"] for info in steps[-1][3]] == [20] * N
    total = sum(rewards for _, rewards, *_ in steps)
    assert [info["episode"]["r"] for info in steps[-1][3]] == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert env.get_attr("num_envs", [0, 1]) == [N, N]
    assert env.env_is_wrapped(VecMonitor, 0) == [False]


def test_the_librarys_own_check_finds_nothing_wrong_with_a_single_copy():
    check_env(gymnasium.make("foal/navigation-v0").unwrapped)
    check_env(gymnasium.make("foal/quadruped-balance-v0", action_limit=1.0).unwrapped)


def test_a_task_without_bounds_gets_some():
    assert np.array_equal(example.robots("quadruped-balance", 1).action_space.high, np.full(12, example.ACTION_LIMIT))
    assert np.array_equal(example.robots("cartpole", 1).action_space.high, [3.0])


def test_it_learns_to_keep_the_pole_up():
    model = example.learner("cartpole")
    length, total = example.evaluate(model, "cartpole")
    assert 20 < length == total < 200
    model.learn(30_000)
    assert example.evaluate(model, "cartpole")[0] > 2 * length


def test_the_command_prints_before_and_after(capsys):
    example.main(["--task", "navigation", "--seconds", "0.1", "--robots", "8"])
    title, before, after = capsys.readouterr().out.splitlines()
    assert title.startswith("navigation")
    assert re.fullmatch(r"before: +600\.0 steps, return -?\d+\.\d\d", before)
    assert re.fullmatch(r"after +0\.1 s: +600\.0 steps, return -?\d+\.\d\d; learnt from [\d,]+ steps", after)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "fly"], "task: unknown task 'fly'"),
        (["--seconds", "0"], "--seconds: expected more than 0, got 0"),
        (["--robots", "0"], "num_envs"),
    ],
)
def test_it_says_what_it_was_asked_wrongly(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        example.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_without_stable_baselines_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.delitem(sys.modules, "examples.stable_baselines3")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("examples.stable_baselines3", run_name="__main__")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert "pip install stable-baselines3" in error
