"""Tasks as Gymnasium's environments, many copies at once and a single one."""

import itertools
import pathlib
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils import env_checker
from gymnasium.utils.passive_env_checker import (
    check_action_space,
    check_obs,
    check_observation_space,
    data_shares_objects,
    env_reset_passive_checker,
)
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from environments import registry
from environments.cartpole import CartPoleCfg
from environments.contracts import Box
from environments.gymnasium import GymEnv, GymVectorEnv, register_all

ROOT = pathlib.Path(__file__).resolve().parent.parent
N = 40  # more than a block, not a multiple of one
FALL = 10 * np.ones((N, 12), np.float32)  # legs that fold: robots fall
STAND = np.zeros((N, 12), np.float32)
TASKS = list(registry.tasks())
# Gymnasium says that a space without bounds, or with others than +-1, may be none that was meant
checked = pytest.mark.filterwarnings("error", "ignore:.*A Box .* space .*infinity", "ignore:.*For Box action spaces")


def make(seed=0, **changes):
    return GymVectorEnv(registry.make("quadruped-balance", num_envs=N, env_cfg_override=changes, threads=1), seed)


def play(env, steps, actions=STAND):
    return play_all(env, [actions] * steps)


def play_all(env, actions):
    return [env.step(action) for action in actions]


def single(task="cartpole", **changes):
    return GymEnv(registry.make(task, env_cfg_override=changes))


def episode(env, action):
    """Step until the end; return all that the steps returned."""
    steps = [env.step(action)]
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(action))
    return steps


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


def test_spaces_are_the_tasks_own(monkeypatch):
    env = registry.make("cartpole", num_envs=2)
    assert np.array_equal(GymVectorEnv(env).single_action_space.high, [3.0])
    assert np.array_equal(GymVectorEnv(env, action_limit=5.0).single_action_space.low, [-3.0])
    monkeypatch.setattr(type(env), "observation_space", Box(4, low=-1.0))
    bounds = GymVectorEnv(env, action_limit=5.0).single_observation_space
    assert np.array_equal(bounds.low, np.full(4, -1.0))
    assert np.array_equal(bounds.high, np.full(4, np.inf))
    monkeypatch.setattr(type(env), "action_space", Box(1, high=2.0))
    bounds = GymVectorEnv(env, action_limit=5.0).single_action_space
    assert (bounds.low, bounds.high) == (-5.0, 2.0)


@checked
@pytest.mark.parametrize("task", TASKS)
def test_gymnasiums_checks_find_nothing_wrong_with_many_copies(task):
    env = gymnasium.make_vec(f"foal/{task}-v0", num_envs=3)
    assert type(env) is GymVectorEnv and env.num_envs == 3
    check_action_space(env.action_space)
    check_observation_space(env.observation_space)
    # those of single environments that ask for nothing that only these have
    env_checker.check_seed_deprecation(env)
    env_checker.check_reset_return_info_deprecation(env)
    env_checker.check_reset_return_type(env)
    env_checker.check_reset_seed_determinism(env)
    env_checker.check_reset_options(env)
    env_reset_passive_checker(env)
    # and what the others look at, over several steps
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(20)]
    runs = [[env.reset(seed=123), *play_all(env, actions)] for _ in range(2)]
    assert env_checker.data_equivalence(*runs, exact=True)
    assert not any(data_shares_objects(a, b) for a, b in itertools.combinations(runs[0] + runs[1], 2))
    for obs, *other in runs[0]:
        check_obs(obs, env.observation_space, "step")
        assert all(np.isfinite(array).all() for array in other[:-1])


@checked
@pytest.mark.parametrize("task", TASKS)
def test_gymnasiums_checks_find_nothing_wrong_with_a_single_copy(task):
    env = gymnasium.make(f"foal/{task}-v0").unwrapped
    assert type(env) is GymEnv and env.spec is not None  # without a spec, determinism goes unchecked
    env_checker.check_env(env)


def test_a_seed_gives_the_same_episodes():
    a = make()
    b = make(seed=7)
    first, _ = a.reset(seed=3)
    again, _ = b.reset(seed=3)
    assert np.array_equal(first, again)
    assert all(same(x, y) for x, y in zip(play(a, 60, FALL), play(b, 60, FALL), strict=True))
    other, _ = b.reset(seed=4)
    assert not np.array_equal(first, other)


def test_resets_without_a_seed_differ_and_repeat_in_another_environment():
    a = make(seed=5)
    b = make(seed=5)
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
        assert same(
            (obs, rewards, terminations, truncations), (state.obs, state.reward, state.terminated, state.truncated)
        )
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
        arrays = [
            obs,
            rewards,
            terminations,
            truncations,
            infos["privileged"],
            *([infos["final_obs"]] if "final_obs" in infos else []),
        ]
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


def test_what_a_task_tallies_is_told_of_whole_episodes():
    changes = {"max_episode_seconds": 0.5, "reached": 90.0}
    env = GymVectorEnv(registry.make("navigation", num_envs=3, env_cfg_override=changes))
    one = single("navigation", **changes)
    env.reset(seed=0)
    *other, (*_, infos) = play(env, 10, np.zeros((3, 3)))
    assert all("final_info" not in infos for *_, infos in other)
    # every goal is so near that each step reaches one
    assert np.array_equal(infos["final_info"]["episode_goals"], [10.0] * 3)
    assert infos["final_info"]["_episode_goals"].all()
    assert not any(
        "privileged" in name for name in (*infos, *infos["final_info"])
    )  # the task tells nothing of the kind
    one.reset(seed=0)
    assert episode(one, np.zeros(3))[-1][4]["episode_goals"] == 10.0


def test_a_single_copy_ends_with_the_last_observation_and_starts_the_next_episode_with_the_first():
    env = single()
    many = GymVectorEnv(registry.make("cartpole"))
    first, info = env.reset(seed=3)
    assert np.array_equal(first, many.reset(seed=3)[0][0])
    assert info == {}
    for _ in range(3):
        steps = episode(env, [0.5])
        for obs, reward, terminated, truncated, info in steps[:-1]:
            expected = many.step([[0.5]])
            assert np.array_equal(obs, expected[0][0])
            assert (reward, terminated, truncated, info) == (1.0, False, False, {})
        obs, reward, terminated, truncated, info = steps[-1]
        expected = many.step([[0.5]])
        assert (type(reward), terminated, truncated) == (float, True, False)
        assert np.array_equal(obs, expected[4]["final_obs"][0])
        assert np.abs(obs[:2]).max() > 0.2  # where an episode ends, not where one begins
        assert info == {"episode_return": len(steps), "episode_steps": len(steps)}
        assert np.array_equal(env.reset()[0], expected[0][0])


def test_a_single_copys_info_is_of_the_moment_of_its_observation():
    env = single("quadruped-balance", max_episode_seconds=0.2)
    many = GymVectorEnv(registry.make("quadruped-balance", env_cfg_override={"max_episode_seconds": 0.2}))
    assert np.array_equal(env.reset(seed=1)[1]["privileged"], many.reset(seed=1)[1]["privileged"][0])
    steps = episode(env, STAND[0])
    assert len(steps) == 10 and steps[-1][3]
    for *_, info in steps:
        infos = many.step(STAND[:1])[4]
        assert np.array_equal(info["privileged"], infos.get("final_info", infos)["privileged"][0])
    assert np.array_equal(env.reset()[1]["privileged"], infos["privileged"][0])


def test_a_reset_after_the_end_starts_nothing_twice(monkeypatch):
    env = single(max_episode_seconds=0.1)
    starts = []
    start = env.env.init_state
    monkeypatch.setattr(env.env, "init_state", lambda *args: starts.append(args) or start(*args))
    env.reset(seed=1)
    for _ in range(4):
        episode(env, [0.0])
        env.reset()
    assert starts == [(1, False)]
    env.reset()  # nothing has ended since
    episode(env, [0.0])
    env.reset(seed=2)
    assert [seed for seed, _ in starts[::2]] == [1, 2] and len(starts) == 3
    episode(env, [0.0])
    env.reset(options={"staggered": True})
    assert len(starts) == 4 and starts[3][1]


def test_single_copies_repeat_with_a_seed_and_differ_without():
    a = single()
    b = single()

    def episodes(env, seed):
        return [
            np.concatenate([env.reset(seed=seed if i == 0 else None)[0], episode(env, [0.3])[-1][0]]) for i in range(4)
        ]

    first = episodes(a, 7)
    assert np.array_equal(first, episodes(b, 7))
    assert len({starts.tobytes() for starts in first}) == 4
    assert not np.array_equal(first, episodes(b, 8))
    a.reset(seed=7)
    b.reset(seed=7)
    assert np.array_equal(a.reset()[0], b.reset()[0])  # in the middle of an episode too
    # nobody named a seed: environments beside each other do not all do the same
    assert not np.array_equal(single().reset()[0], single().reset()[0])
    assert not np.array_equal(single().reset(seed=2**32 + 1)[0], single().reset(seed=2**33 - 1)[0])


def test_what_a_single_copy_returned_is_never_written_over():
    env = single("quadruped-balance", max_episode_seconds=0.1)
    kept = []
    for _ in range(5):
        obs, info = env.reset()
        returned = [(obs, info), *((obs, info) for obs, *_, info in episode(env, FALL[0]))]
        kept += [(array, array.copy()) for obs, info in returned for array in (obs, info["privileged"])]
    assert all(np.array_equal(x, copy) for x, copy in kept)


def test_a_single_copy_says_what_it_is_asked_wrongly():
    with pytest.raises(ValueError, match="env: expected a single copy, got 2"):
        GymEnv(registry.make("cartpole", num_envs=2))
    env = single(max_episode_seconds=0.1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0.0])
    env.reset()
    with pytest.raises(ValueError, match="actions"):
        env.step([0.0, 0.0])
    episode(env, [0.0])
    with pytest.raises(gymnasium.error.ResetNeeded, match="after the end"):
        env.step([0.0])
    env.reset()
    env.step([0.0])
    with pytest.raises(ValueError, match="options: expected staggered, got age"):
        env.reset(options={"age": 3})


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_own_vector_environments_take_single_copies(mode):
    env = gymnasium.make_vec(
        "foal/cartpole-v0", num_envs=3, vectorization_mode=mode, env_cfg_override={"max_episode_seconds": 0.1}
    )
    obs, _ = env.reset()
    assert len({row.tobytes() for row in obs}) == 3
    steps = play(env, 12, np.zeros((3, 1), np.float32))
    env.close()
    assert [truncations.all() for _, _, _, truncations, _ in steps] == [i == 9 for i in range(12)]
    assert np.array_equal(steps[9][4]["episode_steps"], [10.0] * 3)


@pytest.mark.filterwarnings("error")  # Gymnasium's, of a name that is taken
def test_tasks_are_known_by_name(monkeypatch):
    assert {f"foal/{task}-v0" for task in TASKS} <= set(gymnasium.registry)
    env = gymnasium.make("environments.gymnasium:foal/cartpole-v0", env_cfg_override={"force": 50.0}, action_limit=9.0)
    assert env.unwrapped.env.cfg.force == 50.0
    assert env.action_space.high == 3.0
    assert gymnasium.make(gymnasium.spec("foal/cartpole-v0")).reset(seed=1)[0] in env.observation_space
    assert gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()).make().unwrapped.env.cfg.force == 50.0
    many = gymnasium.make_vec("foal/navigation-v0", num_envs=5, seed=4, env_cfg_override={"width": 20.0}, threads=1)
    assert np.array_equal(many.reset()[0], many.reset(seed=4)[0])
    assert many.env.cfg.width == 20.0
    # tasks that are defined later
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    for name in ("late", "a name that gymnasium does not take"):
        registry.envcfg(name)(CartPoleCfg)
        registry.env(name)(type(env.unwrapped.env))
    register_all()
    try:
        assert gymnasium.make("foal/late-v0").action_space == env.action_space
    finally:
        gymnasium.registry.pop("foal/late-v0", None)


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
    code = (
        "import sys; sys.modules['gymnasium'] = None; from environments import registry; "
        "registry.make('quadruped-balance')"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


RENDER = """
import sys
import gymnasium
import numpy as np
from gymnasium.wrappers import RecordVideo
import environments.gymnasium
from renderer import RenderError

try:
    env = gymnasium.make("foal/cartpole-v0", render_mode="rgb_array", size=(160, 120))
    env.reset(seed=0)
    pictures = [env.render()]
    for _ in range(6):
        env.step(env.action_space.high)
    pictures.append(env.render())
    env.close()
    envs = gymnasium.make_vec("foal/quadruped-balance-v0", num_envs=4, render_mode="rgb_array", size=(160, 120))
    envs.reset(seed=0)
    pictures.append(envs.render()[0])
    envs.close()
    env = RecordVideo(gymnasium.make("foal/cartpole-v0", render_mode="rgb_array", size=(160, 120)), sys.argv[1])
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
except RenderError as error:
    sys.exit(str(error))
np.savez(sys.argv[2], *pictures)
env.close()
"""


def test_pictures_of_gymnasium(tmp_path):
    pytest.importorskip("moviepy")
    target = tmp_path / "pictures.npz"
    command = [sys.executable, "-c", RENDER, str(tmp_path / "videos"), str(target)]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    if "no display to record on" in run.stderr:
        pytest.skip("no display and no software renderer here")
    assert run.returncode == 0, run.stderr
    pictures = [picture.astype(int) for picture in np.load(target).values()]
    assert all(picture.shape == (120, 160, 3) and picture.std() > 5 for picture in pictures)
    assert np.abs(pictures[1] - pictures[0]).max() > 60  # the cart has moved
    assert np.abs(pictures[2] - pictures[0]).mean() > 5
    assert [path.suffix for path in (tmp_path / "videos").iterdir()] == [".mp4"]


def test_what_cannot_be_rendered_is_told():
    env = GymEnv(registry.make("cartpole"), render_mode="rgb_array")
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 100}
    with pytest.raises(ResetNeeded, match="before reset"):
        env.render()
    assert GymEnv(registry.make("cartpole")).render() is None
    with pytest.raises(ValueError, match="render_mode: expected one of rgb_array, or None, got 'human'"):
        GymEnv(registry.make("cartpole"), render_mode="human")
