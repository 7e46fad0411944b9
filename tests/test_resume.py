"""A run that was interrupted and goes on: the same bits as one that never stopped."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from rich.console import Console

from entity import Creature
from environments import ArrayEnv, EnvCfg, registry
from settings import ConfigError, override
from training import checkpoint as checkpoints
from training import runs, tree
from training.engine import TrainingEngine
from training.presets import preset
from training.run import Run

CPU = torch.device("cpu")
ITERATIONS = 10
TIMES = "train_seconds", "rate", "collect_seconds", "update_seconds"  # of a row, which differ from run to run
SMALL = {"train.num_envs": 64, "train.eval_every": 3, "train.eval_episodes": 16, "train.iterations": ITERATIONS}
BRIEF = {"env.max_episode_seconds": 1.0, "ppo.rollout": 8}
WORLD = {
    "world_model.updates": 2,
    "world_model.batch": 16,
    "world_model.capacity": 4,
    "world_model.patience": 2,
    "world_model.imagined": 64,
    "world_model.passes": 1,
    "world_model.horizon": 2,
}


def started(folder, cfg, threads, precision, loaded=None):
    """Return a run in a folder, of a checkpoint's creature or a new one."""
    torch.manual_seed(cfg.seed)
    env, eval_env = (registry.make(cfg.task, num_envs=n, cfg=cfg.env, threads=threads) for n in (64, 16))
    creature = loaded.creature(env) if loaded else Creature(env, cfg.network, cfg.world_model)
    creature.use_precision(precision)
    engine = TrainingEngine(env, creature, cfg, CPU, threads)
    engine.warm_up()
    return Run(cfg, engine, eval_env, folder, Console(quiet=True))


def rows(folder):
    """Return a run's log without its times."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    return [{n: x for n, x in zip(names, line.split(","), strict=True) if n not in TIMES} for line in lines[1:]]


def assert_goes_on_alike(tmp_path, cfg, threads=1, precision="float32", stop=5):
    """Train in one go, and again with a stop and a start in between, and compare to the last bit."""
    whole = started(tmp_path / "whole", cfg, threads, precision)
    assert whole.go() == 0
    whole.finish()
    first = started(tmp_path / "parts", cfg, threads, precision)
    first.last = stop
    first.go()
    first.last = ITERATIONS
    first.finish()
    modules = [cfg.network.policy]
    loaded = checkpoints.load(tmp_path / "parts" / runs.LATEST, modules=modules)
    second = started(tmp_path / "parts", cfg, threads, precision, loaded)
    second.resume(loaded, False, None)
    assert (second.iteration, second.last) == (stop, ITERATIONS)
    assert second.go() == 0
    second.finish()
    one, other = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    del one[stop - 1], other[stop - 1]  # the last iteration of a run is evaluated
    assert one == other
    one, other = (checkpoints.load(tmp_path / name / runs.LATEST, modules=modules) for name in ("whole", "parts"))
    assert tree.digest(one.weights) == tree.digest(other.weights)
    assert tree.digest(one.trainer) == tree.digest(other.trainer)
    assert tree.digest(one.run["engine"]) == tree.digest(other.run["engine"])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_going_on_is_the_same_run(tmp_path, precision, threads):
    assert_goes_on_alike(tmp_path, override(preset("quadruped-balance"), SMALL | BRIEF), threads, precision)


@pytest.mark.parametrize("task", ["cartpole", "navigation", "bounce-ball", "anymal-navigation", "quadruped-walk-rough"])
def test_going_on_with_any_kind_of_task_is_the_same_run(tmp_path, task):
    assert_goes_on_alike(tmp_path, override(preset(task), SMALL | BRIEF))


@pytest.mark.parametrize(
    ("role", "kind", "precision", "threads"),
    [
        ("belief", "recurrent", "bfloat16", 2),
        ("belief", "recurrent", "float32", 1),
        ("imagination", "recurrent", "bfloat16", 2),
        ("imagination", "recurrent", "float32", 1),
        ("imagination", "ensemble", "bfloat16", 2),
        ("imagination", "ensemble", "float32", 1),
        ("exploration", "ensemble", "float32", 2),
    ],
)
def test_going_on_with_a_world_model_is_the_same_run(tmp_path, role, kind, precision, threads):
    falling = {"world_model.kind": kind, "world_model.average": 4, "world_model.falls": 0.25, "env.fall_tilt": 0.2}
    cfg = override(preset("quadruped-balance", role), SMALL | BRIEF | WORLD | falling)
    assert_goes_on_alike(tmp_path, cfg, threads, precision)


@pytest.mark.parametrize(("precision", "threads"), [("bfloat16", 2), ("float32", 1)])
def test_going_on_with_soft_actor_critic_is_the_same_run(tmp_path, precision, threads):
    few = {"sac.updates": 4, "sac.batch": 8, "sac.patience": 2, "sac.capacity": 6, "sac.others": 2, "sac.hidden": 64}
    cfg = override(preset("quadruped-walk-flat", learner="sac"), SMALL | BRIEF | few)
    assert_goes_on_alike(tmp_path, cfg, threads, precision)


@pytest.mark.parametrize("policy", ["examples.mlp:MLP", "examples.transformer:Transformer"])
def test_going_on_with_a_policy_of_ones_own_is_the_same_run(tmp_path, policy):
    cfg = override(preset("cartpole"), SMALL | BRIEF | {"network.policy": policy})
    assert_goes_on_alike(tmp_path, cfg)


@dataclass(frozen=True)
class StoreCfg(EnvCfg):
    """A point that goes where it is told."""


class Store(ArrayEnv):
    """It holds numbers that are not finite, an array whose memory is not in one piece, and numbers of NumPy's."""

    num_obs = num_actions = 1

    def create(self, n):
        return {"x": np.zeros((3, n)).T, "least": np.full(n, np.inf)}

    def reset(self, who, random):
        self.data["x"][who] = random.uniform(-1.0, 1.0)[:, None]

    def act(self, actions):
        self.data["x"] += 0.05 * np.clip(actions, -1.0, 1.0)

    def physics(self):
        pass

    def observe(self):
        return self.data["x"][:, :1]

    def reward(self):
        return 1.0 - np.abs(self.data["x"][:, 0])

    def snapshot(self):
        return super().snapshot() | {"time": np.float64(self.clock)}

    def restore(self, snapshot):
        super().restore({name: x for name, x in snapshot.items() if name != "time"})


def test_a_task_may_hold_whatever_numbers_it_likes(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.envcfg("store", "a point")(StoreCfg)
    registry.env("store")(Store)
    assert_goes_on_alike(tmp_path, override(preset("store"), SMALL | BRIEF))
    monkeypatch.setattr(Store, "create", lambda self, n: {"names": np.full(n, "a")})
    with pytest.raises(ConfigError, match=r"create: expected numbers in data\['names'\] of Store, got <U1"):
        registry.make("store")


def test_numbers_that_are_not_finite_are_refused_but_where_they_may_be():
    for expected, got in ((torch.zeros(1), torch.tensor([math.inf])), (0.0, math.inf)):
        tree.require_like({"x": expected}, {"x": got}, "run", finite=False)
        with pytest.raises(ConfigError, match=r"run\.x: expected"):
            tree.require_like({"x": expected}, {"x": got}, "run")


def test_a_run_anew_goes_on_with_its_lessons_and_what_waits(tmp_path):
    teacher = override(preset("quadruped-walk-rough"), SMALL | BRIEF | {"teacher.policy": "quadruped-walk-rough-seen"})
    first = started(tmp_path, teacher, 1, "float32")
    first.last = 4
    first.go()
    first.last = 5
    first.waiting = {"iteration": 4, "env_steps": 4 * 8 * 64, "train_seconds": 1.0, "rate": 1.0}
    assert first.finish()
    loaded = checkpoints.load(tmp_path / runs.LATEST)
    second = started(tmp_path, teacher, 1, "float32", loaded)
    second.resume(loaded, True, None)
    assert second.engine.lessons == first.engine.lessons == 4
    assert second.waiting["iteration"] == 4
    assert second.go() == 0
    lines = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3", "4", "5"]  # none of them twice


def test_whole_numbers_of_a_curriculum_are_numbers():
    cfg = override(preset("cartpole"), {"curriculum.command": (0, 1), "ppo.gamma": 1})
    assert (*map(type, cfg.curriculum.command), type(cfg.ppo.gamma)) == (float, float, float)
