"""Numbers that are not finite: nothing that is good is lost to them, and somebody is told."""

import csv
import math

import numpy as np
import pytest
import torch
from commands import called

import simulate
from environments import registry
from training import checkpoint, runs

SMALL = "--train.num_envs", "64", "--train.eval_episodes", "8", "--env.max_episode_seconds", "0.5"
TASK = """
import numpy as np
from dataclasses import dataclass
from environments import ArrayEnv, EnvCfg, registry


@registry.envcfg("broken", "a point whose numbers break")
@dataclass(frozen=True)
class BrokenCfg(EnvCfg):
    ctrl_dt: float = 0.05
    sim_dt: float = 0.05


@registry.env("broken")
class Broken(ArrayEnv):
    num_obs = 2
    num_actions = 1

    def create(self, n):
        return {"x": np.zeros(n, np.float32), "v": np.zeros(n, np.float32)}

    def reset(self, who, random):
        self.data["x"][who] = random.uniform(-1.0, 1.0)
        self.data["v"][who] = 0.0

    def act(self, actions):
        self.data["v"] += 0.05 * np.clip(actions[:, 0], -1, 1)

    def physics(self):
        self.data["x"] += 0.05 * self.data["v"]

    def observe(self):
        seen = np.stack([self.data["x"], self.data["v"]], axis=1)
        seen[BREAKS] = np.nan
        return seen

    def reward(self):
        return 1.0 - np.abs(self.data["x"])
"""


@pytest.fixture
def train(tmp_path, monkeypatch, threads_as_before):
    """Return a function that trains in a folder of its own and returns what the command left, and the log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))

    def train(*arguments):
        done = called(simulate.main, [*SMALL, *map(str, arguments)], monkeypatch)
        (path,) = tmp_path.glob("runs/*/metrics.csv")
        with open(path, newline="") as file:
            return done, path.parent, list(csv.DictReader(file))

    return train


@pytest.mark.parametrize("weight", [1e38, 1e30])
def test_rewards_beyond_all_bounds_end_training_with_code_3_and_sound_networks(train, weight):
    done, folder, rows = train("--reward.alive", weight, "--iterations", 30, "--train.eval_every", 1)
    assert done.code == 3
    lines = [line for line in done.err.splitlines() if "undone, learning rate now" in line]
    assert len(lines) == len(rows) == 10
    assert all("most of it alive" in line for line in lines)
    assert "did not recover: the last 10 iterations were undone" in done.err
    for path in folder.glob("*.pt"):
        weights = checkpoint.load(path).weights
        assert all(torch.isfinite(x).all() for x in weights.values())
    assert not (folder / runs.BEST).exists() or math.isfinite(
        checkpoint.load(folder / runs.BEST).progress["mean_return"]
    )


def test_a_learning_rate_beyond_all_bounds_comes_down_by_itself(train):
    options = "--ppo.learning_rate", 1, "--ppo.target_kl", 0, "--train.eval_every", 0
    done, _, rows = train(*options, "--iterations", 12)
    assert done.code == 0, done.err
    assert "nothing was left of the policy" in done.err
    assert 1 <= int(rows[-1]["undone"]) < 9
    assert float(rows[-1]["kl"]) < 1.0
    assert float(rows[-1]["learning_rate"]) <= 0.2


@pytest.mark.parametrize(("breaks", "code"), [("np.abs(self.data['x']) > 0.95", 0), (":", 3)])
def test_a_task_whose_observations_break_is_trained_as_far_as_it_can_be(train, tmp_path, breaks, code):
    (tmp_path / f"broken_{code}.py").write_text(TASK.replace("BREAKS", breaks))
    done, _, rows = train("--task", f"broken_{code}:broken", "--iterations", 12, "--train.eval_every", 4)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    if code == 0:
        assert 0 < max(float(row["end_broken"] or 0) for row in rows) < 0.5
        assert int(rows[-1]["undone"]) == 0
    else:
        words = "100% of the episodes ended by numbers that were not finite (observe: got [nan, nan] of robot 0)"
        assert words in done.err


def test_what_cannot_be_ranked_is_not_the_best(train, monkeypatch):
    monkeypatch.setattr("training.run.evaluate", lambda *_: {
        "survival": np.nan, "mean_return": np.nan, "episodes": 8, "episode_seconds": 1.0, "goal_distance": np.nan,
        "speed": 0.0,
    })  # fmt: skip
    done, folder, _ = train("--iterations", 2, "--train.eval_every", 1)
    assert done.code == 0, done.err
    assert not (folder / runs.BEST).exists()
    assert (folder / runs.LATEST).exists()
