"""Tasks by name, what a step's result must be, and tasks of other people's modules."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from config import Config, EnvCfg, QuadrupedCfg
from environments import ABEnv, EnvState, registry


@pytest.fixture
def fresh(monkeypatch):
    """Tasks registered in a test are gone after it."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))


def says(words, call, *arguments, **keywords):
    with pytest.raises(ValueError, match=words) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)


def test_a_task_is_known_by_what_its_decorators_say(fresh):
    @registry.envcfg("hop", "hop about")
    @dataclasses.dataclass(frozen=True)
    class HopCfg(EnvCfg):
        """Hop."""

        strength: float = 2.0

    made = []
    registry.env("hop", "numpy")(lambda cfg, num_envs, threads: made.append((cfg, num_envs, threads)) or "slow")
    registry.env("hop", "numba")(lambda cfg, num_envs, threads: made.append((cfg, num_envs, threads)) or "fast")
    registry.rlcfg("hop")(lambda: {"ppo.gamma": 0.9})
    assert registry.contains("hop") and registry.tasks()["hop"] == "hop about"
    assert (
        registry.list_registered_envs()["hop"] == ("numpy", "numba")
        and registry.find_available_sim_backend("hop") == "numpy"
    )
    assert registry.make("hop", None, {"strength": 3.0, "max_episode_seconds": 2.0}, 5, 2) == "slow"
    assert registry.make("hop", sim_backend="numba") == "fast"
    assert made == [(HopCfg(strength=3.0, max_episode_seconds=2.0), 5, 2), (HopCfg(), 1, 0)]
    cfg = registry.default_rl_cfg("hop")
    assert (cfg.task, cfg.env, cfg.ppo.gamma) == ("hop", HopCfg(), 0.9)


def test_names_that_are_taken_or_unknown_are_refused_with_the_known_ones(fresh):
    known = "known: quadruped-balance, .*cartpole"
    says(rf"envcfg: expected a new name, got 'cartpole'; {known}", registry.envcfg("cartpole"), EnvCfg)
    says("envcfg: expected a name without a colon, got 'a:b'", registry.envcfg("a:b"), EnvCfg)
    says(rf"env: unknown task 'cartpol'; did you mean cartpole\? {known}", registry.env("cartpol"), ABEnv)
    says("env: expected a new backend of cartpole, got 'numpy'; known: numpy", registry.env("cartpole", "numpy"), ABEnv)
    says(rf"rlcfg: unknown task 'nope'; {known}", registry.rlcfg("nope"), dict)
    says("rlcfg: expected a task without a training preset, got 'cartpole'", registry.rlcfg("cartpole"), dict)
    for call in (registry.make, registry.default_cfg, registry.default_rl_cfg, registry.find_available_sim_backend):
        says(rf"task: unknown task 'nope'; {known}", call, "nope")
    assert not registry.contains("nope") and not registry.contains(3)
    says("sim_backend: unknown backend 'mujoco' of cartpole; known: numpy", registry.make, "cartpole", "mujoco")
    registry.envcfg("bare")(EnvCfg)
    says("task: expected an environment registered for bare, got its configuration alone", registry.make, "bare")
    registry.envcfg("odd")(lambda: 3)
    says("envcfg: expected an EnvCfg for odd, got 3", registry.make, "odd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frce": 1.0}, r"frce: unknown field; did you mean force\?"),
        ({"weather": 1.0}, "weather: unknown field; known: cart_mass, ctrl_dt, .*force, .*sim_dt"),
        ({"force": "strong"}, "env.force: expected a number between 0 and 100000, got 'strong'"),
        ({"force": True}, "env.force: expected a number between 0 and 100000, got True"),
        ({"force": -1}, "env.force: expected a number between 0 and 100000, got -1"),
        ({"model": 3.0}, "env.model: expected a text, got 3.0"),
        ({"sim_dt": 0.02}, "env.sim_dt: expected at most env.ctrl_dt = 0.01 s, got 0.02"),
        ({"sim_dt": 0.003}, "env.sim_dt: expected a whole share of env.ctrl_dt = 0.01 s, got 0.003"),
        ({"max_episode_seconds": float("nan")}, "env.max_episode_seconds: expected a number between .*, got nan"),
        ([("force", 1.0)], "env: expected a dict of fields to change, got"),
    ],
)
def test_overrides_that_cannot_be_are_refused_by_field_value_and_what_was_expected(changes, words):
    says(words, registry.make, "cartpole", env_cfg_override=changes)


@pytest.mark.parametrize("num_envs", [0, -3, 2.0, True, "4"])
def test_a_number_of_robots_that_is_none_is_refused(num_envs):
    says(
        f"num_envs: expected a whole number of at least 1, got {num_envs!r}",
        registry.make,
        "cartpole",
        num_envs=num_envs,
    )


def test_a_configuration_of_another_task_is_refused():
    says("cfg: expected a CartPoleCfg for cartpole, got QuadrupedCfg", registry.make, "cartpole", cfg=QuadrupedCfg())


def test_time_is_checked_and_derived():
    cfg = EnvCfg(sim_dt=0.004, ctrl_dt=0.02, max_episode_seconds=3.0)
    cfg.validate()
    assert (cfg.sim_substeps, cfg.max_episode_steps) == (5, 150)
    says("env.sim_dt: expected at most env.ctrl_dt = 0.01 s, got 0.02", EnvCfg(sim_dt=0.02).validate)
    says("env.sim_dt: expected a whole share", EnvCfg(sim_dt=0.006).validate)
    says(
        "env.max_episode_seconds: expected at least env.ctrl_dt = 0.5 s, got 0.02",
        EnvCfg(sim_dt=0.5, ctrl_dt=0.5, max_episode_seconds=0.02).validate,
    )
    says("env.model: expected a text, got 3", EnvCfg(model=3).validate)


POSTPONED = """
from __future__ import annotations
import dataclasses
from config import EnvCfg

@dataclasses.dataclass(frozen=True)
class LateCfg(EnvCfg):
    size: tuple[float, float] = (0.0, 1.0)
"""


def test_types_may_be_postponed(monkeypatch):
    module = types.ModuleType("postponed")
    monkeypatch.setitem(sys.modules, "postponed", module)
    exec(POSTPONED, vars(module))
    module.LateCfg().validate()
    says("env.size: expected two numbers", module.LateCfg(size=3).validate)


MODULE = '''
from dataclasses import dataclass
import numpy as np
from environments import ArrayEnv, EnvCfg, registry

@registry.envcfg("drift", "drift")
@dataclass(frozen=True)
class DriftCfg(EnvCfg):
    """Drift."""

@registry.env("drift")
class Drift(ArrayEnv):
    """Drift."""
    num_obs = num_actions = 1
    def create(self, n): return {"x": np.zeros(n)}
    def reset(self, who, random): self.data["x"][who] = 0
    def act(self, actions): self.data["x"] += actions[:, 0]
    def physics(self): pass
    def observe(self): return self.data["x"][:, None]
    def reward(self): return -np.abs(self.data["x"])
'''


def test_a_task_of_a_module_in_the_current_folder_is_found(fresh, tmp_path, monkeypatch):
    (tmp_path / "drifting.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    env = registry.make("drifting:drift", num_envs=3)
    env.init_state()
    np.testing.assert_array_equal(env.step(np.array([[1.0], [2.0], [-3.0]])).reward, [-1, -2, -3])
    assert registry.default_rl_cfg("drifting:drift").task == "drifting:drift" and registry.contains("drift")
    says("task: unknown task 'float'; known: .*drift", registry.make, "drifting:float")
    says(
        "task: expected a module that can be imported from .* or is installed, got 'sinking'",
        registry.make,
        "sinking:drift",
    )
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    says("task: broken cannot be imported: No module named 'nothing_of_that_name'", registry.make, "broken:drift")
    (tmp_path / "typo.py").write_text("def f(:")
    says("task: typo cannot be imported: SyntaxError: invalid syntax", registry.make, "typo:drift")
    del sys.modules["drifting"]


def test_other_packages_make_tasks_known_by_an_entry_point(fresh, tmp_path, monkeypatch):
    (tmp_path / "packaged.py").write_text(MODULE)
    info = tmp_path / "packaged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[foal.environments]\ngood = packaged\nbad = nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._load_packages.cache_clear()
    with pytest.warns(UserWarning, match="tasks of nowhere are not available: No module named 'nowhere'"):
        assert registry.contains("drift") and "drift" in registry.list_registered_envs()
    registry._load_packages.cache_clear()
    del sys.modules["packaged"]


# A step's result


def state(n=3, **changes):
    whole = EnvState(
        np.zeros((n, 2), np.float32),
        np.zeros(n, np.float32),
        np.zeros(n, bool),
        np.zeros(n, bool),
        {"privileged": np.zeros((n, 1), np.float32)},
    )
    return whole.replace(**changes)


def test_a_result_is_replaced_in_part():
    before = state()
    after = before.replace(reward=np.ones(3, np.float32), data="d")
    assert after.obs is before.obs and after.data == "d" and before.data is None and not before.reward.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"obs": np.zeros(3, np.float32)}, r"obs: expected float32 of shape \(N, O\), got float32 of shape \(3,\)"),
        ({"obs": np.zeros((3, 2))}, "obs: expected float32 of shape .*, got float64"),
        ({"reward": np.zeros(2, np.float32)}, r"reward: expected float32 of shape \(3\), got float32 of shape \(2,\)"),
        ({"terminated": np.zeros(3)}, "terminated: expected bool of shape"),
        ({"reward": np.array([0, np.nan, 0], np.float32)}, "reward: expected finite numbers, got nan of robot 1"),
        (
            {"obs": np.array([[0, 0], [0, 0], [np.inf, 0]], np.float32)},
            r"obs: expected finite numbers, got \[inf, 0.0\] of robot 2",
        ),
        ({"info": {"speed": np.zeros(4)}}, "speed: expected a row for each of 3 robots, got 4"),
        (
            {"terminated": np.array([0, 1, 0], bool), "truncated": np.array([1, 1, 0], bool)},
            "truncated: expected False where terminated, got both for robot 1",
        ),
    ],
)
def test_a_result_is_validated(changes, words):
    state().validate()
    says(words, state(**changes).validate)


@pytest.mark.parametrize("task", sorted(registry.tasks()))
def test_every_task_keeps_its_contract(task):
    env = registry.make(task, num_envs=40, env_cfg_override={"max_episode_seconds": 0.4}, threads=1)
    cfg = registry.default_rl_cfg(task)
    assert isinstance(cfg, Config) and type(env.cfg) is type(cfg.env) and env.num_envs == 40
    env.cfg.validate()
    space = env.action_space
    assert (env.observation_space.size, space.size) == (env.num_obs, env.num_actions)
    for call, words in (
        (lambda: env.step(np.zeros((40, env.num_actions))), r"step: expected init_state\(\) before"),
        (
            lambda: env.init_state() and env.step(np.zeros((39, env.num_actions))),
            r"actions: expected shape \(40, \d+\), got \(39, \d+\)",
        ),
        (
            lambda: env.step(np.full((40, env.num_actions), np.nan)),
            "actions: expected finite numbers, got nan in column 0 of robot 0",
        ),
    ):
        says(words, call)
    rng = np.random.default_rng(0)
    steps = env.cfg.max_episode_steps
    first = env.init_state(3).obs.copy()
    assert (
        first.std(0).any()
        and np.array_equal(first, env.init_state(3).obs)
        and not np.array_equal(first, env.init_state(4).obs)
    )
    assert first.shape == (40, env.num_obs)
    total = np.zeros(40)
    ended = np.zeros(40, bool)
    env.init_state(3)
    for step in range(1, steps + 1):
        before = env.new_state()
        s = env.step(rng.normal(0, 0.3, (40, env.num_actions)), out=before)
        assert s is before and s.data is not None
        s.validate()
        total += s.reward
        now = s.done & ~ended
        np.testing.assert_allclose(s.info["episode_return"][now], total[now], rtol=1e-4, atol=1e-5)
        assert (s.info["episode_steps"][now] == step).all()
        assert not s.truncated[~ended].any() or step == steps
        assert np.isfinite(s.info["final_obs"][now]).all() and (
            now.sum() == 0 or not np.array_equal(s.info["final_obs"][now], s.obs[now])
        )
        ended |= s.done
        assert all(name in s.info for name in map("episode_{}".format, env.tallies))
    assert ended.all() and s.truncated.any()
    assert all(error.shape == (40,) for error in env.errors().values()) and set(env.targets) <= set(env.errors()) | set(
        env.tallies
    )


@pytest.mark.parametrize("task", ["cartpole", "navigation", "bounce-ball"])
def test_parts_do_what_the_whole_does(task):
    changes = {"max_episode_seconds": 0.3}
    whole, halves = (registry.make(task, num_envs=70, env_cfg_override=changes, threads=1) for _ in range(2))
    parts = halves.split(3)
    sizes = [part.num_envs for part in parts]
    assert sizes == ([32, 32, 6] if task == "bounce-ball" else [23, 23, 24])
    rng = np.random.default_rng(1)
    for each in (whole, *parts):
        each.init_state(5, staggered=True)
    ages = whole.age.copy()
    assert ages.std() > 1
    for _ in range(80):
        actions = rng.normal(0, 2.0, (70, whole.num_actions)).astype(np.float32)
        s = whole.step(actions)
        results = [part.step(a) for part, a in zip(parts, np.split(actions, np.cumsum(sizes)[:-1]), strict=True)]
        for name in ("obs", "reward", "terminated", "truncated"):
            assert np.concatenate([getattr(r, name) for r in results]).tobytes() == getattr(s, name).tobytes()
    says("parts: expected a whole number of at least 1, got 0", halves.split, 0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def physics(self): pass", "def phisics(self): pass", r"Drift: expected a method physics\(\) or advance\(\)"),
        ("def reward(self)", "def rewards(self)", "drift: expected Drift to define reward"),
        ("[:, None]", "", r"observe: expected shape \(4, 1\) from Drift.observe\(\), got \(4,\)"),
        ('-np.abs(self.data["x"])', "1.0", r"reward: expected shape \(4,\) from Drift.reward\(\), got \(\)"),
        ("num_obs =", "tallies = ('laps',); num_obs =", "tally: expected laps, which tallies names, got nothing"),
        (
            "num_obs =",
            "targets = {'laps': (1, 2)}; num_obs =",
            r"targets: expected names of tallies or errors\(\), got laps",
        ),
        (
            "    def physics",
            "    def fallen(self): pass\n    def physics",
            r"fallen: expected shape \(4,\) from Drift.fallen\(\), got \(\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_a_task_of_one_s_own_gets_wrong_is_said_by_method(fresh, tmp_path, monkeypatch, old, new, words):
    assert old in MODULE
    (tmp_path / "drifting.py").write_text(MODULE.replace(old, new))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "drifting", raising=False)

    def go():
        env = registry.make("drifting.py:drift", num_envs=4)
        env.init_state()
        env.step(np.zeros((4, 1)))

    says(words, go)
    sys.modules.pop("drifting", None)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('-np.abs(self.data["x"])', 'np.sqrt(-1.0 - self.data["x"] ** 2)', "reward: got nan of robot 0"),
        ('return self.data["x"][:, None]', 'return 1 / self.data["x"][:, None]', "observe: got [inf] of robot 0"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_ends_its_episode_and_is_counted(fresh, tmp_path, monkeypatch, old, new, complaint):
    (tmp_path / "drifting.py").write_text(MODULE.replace(old, new))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "drifting", raising=False)
    env = registry.make("drifting.py:drift", num_envs=4)
    env.init_state()
    s = env.step(np.zeros((4, 1)))
    s.validate()
    assert s.terminated.all()
    assert env.complaint == complaint
    assert env.statistics() == {"end_time": 0.0, "end_fall": 0.0, "end_broken": 4.0}
    assert env.statistics()["end_broken"] == 0.0


def test_a_task_s_module_is_named_as_in_an_import():
    says(
        "task: expected module:task, the module named as in an import, got './drifting:drift'",
        registry.make,
        "./drifting:drift",
    )
