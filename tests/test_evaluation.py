"""Evaluation: one episode of each robot, counted by hand."""

import contextlib
import time
import types

import numpy as np
import pytest
import torch
from rich.console import Console

from environments import EnvState
from settings import override
from training import run
from training.evaluation import evaluate, nearness, reaches, run_episodes, target
from training.parallel import in_vain, side_by_side
from training.presets import preset
from training.run import Run

ENDS = {0: {2: "fall", 4: "time"}, 1: {5: "time"}, 2: {3: "time", 4: "fall"}}  # of robots, by step


class Scripted:
    """Three robots whose episodes end as written; robot i gets i + 1 a step and is off by 10 i + step."""

    tallies = ("laps",)
    num_envs = 3
    cfg = types.SimpleNamespace(ctrl_dt=0.5)

    def init_state(self, seed):
        self.seed = seed
        self.clock = 0
        self.began = np.zeros(3, int)
        return EnvState(np.zeros((3, 1), np.float32), np.zeros(3), np.zeros(3, bool), np.zeros(3, bool))

    def step(self, actions):
        self.clock += 1
        terminated, truncated = (
            np.array([ENDS[i].get(self.clock) == how for i in range(3)]) for how in ("fall", "time")
        )
        steps = self.clock - self.began
        self.began[terminated | truncated] = self.clock
        info = {
            "episode_return": steps * np.arange(1.0, 4.0),
            "episode_steps": steps,
            "episode_laps": self.clock * np.arange(3.0),
        }
        return EnvState(actions, np.arange(1.0, 4.0), terminated, truncated, info)

    def errors(self):
        return {"distance": 10.0 * np.arange(3) + self.clock}


class Still:
    def initial_state(self, num_envs):
        return 0

    def act(self, obs, state):
        return torch.zeros(len(obs), 1), None, state + 1


def test_an_evaluation_counts_the_first_episode_of_every_robot_alone():
    env = Scripted()
    result = evaluate(Still(), env, 7, torch.device("cpu"))
    assert env.seed == 7
    assert env.clock == 5
    assert result == {
        "episodes": 3,
        "survival": pytest.approx(2 / 3),
        "mean_return": pytest.approx((2 * 1 + 5 * 2 + 3 * 3) / 3),
        "episode_seconds": pytest.approx(0.5 * (2 + 5 + 3) / 3),
        # robots 0, 1 and 2 end after 2, 5 and 3 steps
        "laps": pytest.approx((0 * 2 + 1 * 5 + 2 * 3) / 3),
        # after every step but the last of an episode
        "distance": pytest.approx((1 + (11 + 12 + 13 + 14) + (21 + 22)) / 7),
    }


def still():
    """Return what a Run asks of an engine that learns nothing."""
    return types.SimpleNamespace(creature=None, acting=contextlib.nullcontext, device=None, workers=[None], env_steps=0)


def test_a_lucky_evaluation_is_not_the_best(tmp_path, monkeypatch):
    # means of three: 10, 15, 20, 47, 53, 60, 50, 60, 50
    returns = [10.0, 20.0, 30.0, 90.0, 40.0, 50.0, 60.0, 70.0, 20.0]
    saved = []
    eval_env = types.SimpleNamespace(targets={}, set_level=lambda push, command: None)
    trained = Run(preset("quadruped-balance"), still(), eval_env, tmp_path, Console())
    monkeypatch.setattr(trained, "save", lambda name, progress: saved.append((name, progress["mean_return"])) or True)
    for value in returns:
        found = {"survival": 1.0, "episodes": 1, "mean_return": value}
        monkeypatch.setattr(run, "evaluate", lambda *_, found=found: found)
        trained.evaluate_now()
    assert [x for name, x in saved if name == "best.pt"] == [10.0, 20.0, 30.0, 90.0, 40.0, 50.0, 70.0]


def test_who_is_evaluated_is_who_acts(tmp_path, monkeypatch):
    acting = []

    @contextlib.contextmanager
    def act():
        acting.append(True)
        yield
        acting.pop()

    engine = still()
    engine.acting = act
    eval_env = types.SimpleNamespace(targets={}, set_level=lambda push, command: None)
    trained = Run(preset("quadruped-balance"), engine, eval_env, tmp_path, Console())
    monkeypatch.setattr(run, "evaluate", lambda *_: {"acting": float(len(acting))})
    assert trained.evaluate(1.0, 1.0) == {"acting": 1.0}
    assert not acting


def test_the_best_is_best_under_pushes_as_hard_as_training_s(tmp_path, monkeypatch):
    # mean returns by level of pushes; the second passes the task best, the third the hardest pushes
    returns = [{1.0: 50.0, 1.3: 20.0}, {1.0: 90.0, 1.3: 10.0}, {1.0: 70.0, 1.3: 33.0}, {1.0: 80.0, 1.3: 14.0}]
    levels = []
    saved = []
    eval_env = types.SimpleNamespace(targets={}, set_level=lambda push, command: levels.append((push, command)))
    trained = Run(
        override(preset("quadruped-balance"), {"curriculum.push": (0.5, 1.3), "curriculum.command": (0.3, 1.0)}),
        still(),
        eval_env,
        tmp_path,
        Console(),
    )
    monkeypatch.setattr(trained, "save", lambda name, progress: saved.append((name, progress["mean_return"])) or True)
    for i, by_level in enumerate(returns):
        trained.iteration = i
        monkeypatch.setattr(
            run,
            "evaluate",
            lambda *_, by_level=by_level: {"survival": 1.0, "episodes": 1, "mean_return": by_level[levels[-1][0]]},
        )
        assert trained.evaluate_now()["eval_mean_return"] == by_level[1.0]
    assert levels == [(1.0, 1.0), (1.3, 1.0)] * 4
    assert [x for name, x in saved if name == "best.pt"] == [50.0, 70.0]
    assert [x for name, x in saved if name == "iteration-3.pt"] == [80.0]


class Endless(Scripted):
    """It never ends; somebody's patience does after some steps."""

    def __init__(self, patience):
        self.patience = patience

    def step(self, actions):
        if self.clock == self.patience:
            raise KeyboardInterrupt
        time.sleep(0.001)
        self.clock += 1
        info = dict.fromkeys(("episode_return", "episode_steps", "episode_laps"), np.zeros(3))
        return EnvState(actions, np.ones(3), np.zeros(3, bool), np.zeros(3, bool), info)


def test_an_evaluation_that_is_broken_off_ends_in_every_thread():
    parts = [Endless(5), Endless(5000)]
    with pytest.raises(KeyboardInterrupt):
        side_by_side(lambda part: run_episodes(Still(), part, 0, torch.device("cpu")), parts)
    assert parts[1].clock < 2500
    assert not in_vain()


def test_how_near_an_evaluation_is_to_what_is_asked():
    targets = {"landed": (0.8, np.inf), "error": (-np.inf, 0.2), "still": (-1.0, 0.0)}
    good = {"survival": 1.0, "landed": 0.9, "error": 0.1, "still": -0.5}
    assert nearness(good, 0.95, targets) == 1.0 and reaches(good, 0.95, targets)
    worse = (
        ({"survival": 0.76}, 0.8),
        ({"landed": 0.2}, 0.25),
        ({"error": 0.4}, 0.5),
        ({"landed": 0.4, "error": 0.25}, 0.5),
        ({"still": 1.0}, 0.0),
    )
    for change, near in worse:
        assert nearness(good | change, 0.95, targets) == pytest.approx(near) and not reaches(
            good | change, 0.95, targets
        )
    assert target(0.95, targets) == "95% survival, landed at least 0.8, error at most 0.2, still between -1 and 0"
