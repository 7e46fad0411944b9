"""Tasks as Gymnasium's vector environments."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from environments import registry
from environments.gymnasium import GymVectorEnv

N = 40  # more than a block, not a multiple of one
FALL = 10 * np.ones((N, 12), np.float32)  # legs that fold: robots fall
STAND = np.zeros((N, 12), np.float32)


def make(seed=0, **changes):
    return GymVectorEnv(registry.make("quadruped-balance", num_envs=N, env_cfg_override=changes, threads=1), seed)


def play(env, steps, actions=STAND):
    return [env.step(actions) for _ in range(steps)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))


def test_spaces_and_shapes():
    env = make()
    assert isinstance(env, VectorEnv)
    assert env.num_envs == N
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_observation_space.shape == (37,)
    assert env.single_action_space.shape == (12,)
    assert env.single_observation_space.dtype == env.single_action_space.dtype == np.float32
    obs, infos = env.reset(seed=1)
    assert obs in env.observation_space
    assert infos["privileged"].shape == (N, 37)
    obs, rewards, terminations, truncations, infos = env.step(env.action_space.sample())
    assert obs in env.observation_space
    assert rewards.shape == terminations.shape == truncations.shape == (N,)
    assert rewards.dtype == np.float32
    assert terminations.dtype == truncations.dtype == bool
    assert infos["_privileged"].all()


def test_an_action_space_can_be_bounded():
    env = GymVectorEnv(registry.make("quadruped-balance", num_envs=2, threads=1), action_limit=5.0)
    assert env.single_action_space.high.max() == 5.0
    assert env.action_space.sample() in env.action_space


def test_a_seed_gives_the_same_episodes():
    a, b = make(), make(seed=7)
    first, _ = a.reset(seed=3)
    again, _ = b.reset(seed=3)
    assert np.array_equal(first, again)
    assert all(same(x, y) for x, y in zip(play(a, 60, FALL), play(b, 60, FALL), strict=True))
    other, _ = b.reset(seed=4)
    assert not np.array_equal(first, other)


def test_resets_without_a_seed_differ_and_repeat_in_another_environment():
    a, b = make(seed=5), make(seed=5)
    starts = [[env.reset()[0] for _ in range(3)] for env in (a, b)]
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0][0], starts[0][1])
    assert not np.array_equal(starts[0][1], starts[0][2])
    assert np.array_equal(make().reset(seed=5)[0], starts[0][0])


def test_it_does_what_the_environment_does():
    env = make()
    plain = registry.make("quadruped-balance", num_envs=N, threads=1)
    env.reset(seed=2, options={"staggered": True})
    plain.init_state(2, staggered=True)
    random = np.random.default_rng(0)
    for _ in range(80):
        actions = random.normal(size=(N, 12)).astype(np.float32)
        obs, rewards, terminations, truncations, infos = env.step(actions)
        state = plain.step(actions)
        assert same((obs, rewards, terminations, truncations), (state.obs, state.reward, state.terminated, state.truncated))
        assert ("final_obs" in infos) == state.done.any()
        if state.done.any():
            assert np.array_equal(infos["final_obs"][state.done], state.info["final_obs"][state.done])


def test_final_observation_of_falls():
    env = make()
    env.reset(seed=0)
    ended = 0
    for _ in range(100):
        obs, _, terminations, truncations, infos = env.step(FALL)
        assert not truncations.any()
        assert ("final_obs" in infos) == ("_final_obs" in infos) == ("final_info" in infos) == terminations.any()
        if terminations.any():
            assert np.array_equal(infos["_final_obs"], terminations)
            assert np.array_equal(infos["_final_info"], terminations)
            final = infos["final_obs"]
            assert final.shape == (N, 37)
            # gravity's direction: the robot lay or leant, the next one stands
            assert (obs[terminations, 30] < -0.9).all()
            assert not np.array_equal(final[terminations], obs[terminations])
            assert (final[~terminations] == 0).all()
            ended += terminations.sum()
    assert ended > 0


def test_final_observation_of_episodes_that_time_ends():
    env = make(max_episode_seconds=0.2)
    env.reset(seed=0)
    steps = play(env, 20)
    for i, (obs, _, terminations, truncations, infos) in enumerate(steps):
        assert not terminations.any()
        assert truncations.all() == truncations.any() == (i in (9, 19))
        assert ("final_obs" in infos) == truncations.any()
        if truncations.any():
            assert infos["_final_obs"].all()
            # nothing happened to it but time: it is near the observation before, unlike the one after
            assert np.abs(infos["final_obs"][:, :12] - steps[i - 1][0][:, :12]).max() < 0.1
            assert np.array_equal(infos["final_info"]["episode_steps"], np.full(N, 10))
            assert infos["final_info"]["_episode_steps"].all()
            returns = sum(rewards for _, rewards, *_ in steps[i - 9 : i + 1])
            assert infos["final_info"]["episode_return"] == pytest.approx(returns, rel=1e-5)
            assert infos["final_info"]["privileged"].shape == (N, 37)
            assert not np.array_equal(infos["final_obs"], obs)


def test_what_was_returned_is_never_written_over():
    env = make(max_episode_seconds=0.2)
    first, infos = env.reset(seed=0)
    kept = [(first, first.copy()), (infos["privileged"], infos["privileged"].copy())]
    for obs, rewards, terminations, truncations, infos in play(env, 30, FALL):
        arrays = [obs, rewards, terminations, truncations, infos["privileged"], *([infos["final_obs"]] if "final_obs" in infos else [])]
        kept += [(x, x.copy()) for x in arrays]
    env.reset(seed=9)
    play(env, 30)
    assert all(np.array_equal(x, copy) for x, copy in kept)


def test_wrappers_of_gymnasium_understand_it():
    env = RecordEpisodeStatistics(make(max_episode_seconds=0.2))
    env.reset(seed=0)
    *_, infos = play(env, 10)[-1]
    assert (infos["episode"]["l"] == 10).all()
    assert infos["episode"]["r"] == pytest.approx(infos["final_info"]["episode_return"], rel=1e-4)
    env = DictInfoToList(make(max_episode_seconds=0.2))
    env.reset(seed=0)
    *_, infos = play(env, 10)[-1]
    assert len(infos) == N
    assert infos[3]["final_obs"].shape == (37,)
    assert infos[3]["final_info"]["episode_steps"] == 10


def test_what_is_asked_wrongly_is_said():
    env = make()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(STAND)
    with pytest.raises(ValueError, match="options: expected staggered, got age"):
        env.reset(options={"age": 3})
    env.reset()
    with pytest.raises(ValueError, match="actions"):
        env.step(STAND[:2])


def test_tasks_do_not_need_gymnasium():
    code = "import sys; sys.modules['gymnasium'] = None; from environments import registry; registry.make('quadruped-balance')"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
