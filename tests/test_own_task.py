"""Tasks of one's own: what docs/your_own_task.md says works as it says."""

import json
import pathlib
import re
import sys

import pytest
from commands import called

import simulate
from environments import registry

ROOT = pathlib.Path(__file__).resolve().parent.parent
(SWING_UP,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_own_task.md").read_text(), re.S)


@pytest.fixture
def run(tmp_path, monkeypatch, threads_as_before):
    """Return a function that runs simulate.py with arguments in a folder of one's own and returns what it prints."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("swing_up", "lander"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        done = called(simulate.main, list(map(str, arguments)), monkeypatch)
        assert done.code == 0, done.err
        return done.out

    return run


def improves(run, task, iterations):
    """Train a task from its folder; return what an evaluation tells before and after."""
    results = []
    for n in (1, iterations):
        run("--task", task, "--iterations", n, "--train.num_envs", 1024, "--train.eval_every", 20)
        results.append(json.loads(run("--task", task, "--eval", "--episodes", 64, "--json")))
    return results


def test_the_pendulum_of_the_docs_learns_to_swing_up(tmp_path, run):
    assert len(SWING_UP.splitlines()) < 80
    (tmp_path / "swing_up.py").write_text(SWING_UP)
    before, after = improves(run, "swing_up:swing-up", 40)
    assert after["task"] == "swing_up:swing-up" and after["survival"] == 1.0 and after["episode_seconds"] == 10.0
    assert (
        before["angle"] > 1.2
        and after["angle"] < 0.7 * before["angle"]
        and after["mean_return"] > before["mean_return"] + 2
    )
    assert after["checkpoint"].startswith("runs/swing-up-")
    small = "--env.max_episode_seconds", 0.2, "--render.width", 128, "--render.height", 72
    run("--task", "swing_up:swing-up", "--eval", "--record", "p.gif", *small)
    assert (tmp_path / "p.gif").stat().st_size > 1000


def test_a_task_written_from_the_docs_alone_learns(tmp_path, run):
    text = (ROOT / "tests" / "tasks" / "lander.py").read_text()
    assert len(text.splitlines()) < 100
    (tmp_path / "lander.py").write_text(text)
    before, after = improves(run, "lander:lander", 220)
    assert before["survival"] < 0.2 and after["survival"] > 0.8 and after["mean_return"] > before["mean_return"] + 1
