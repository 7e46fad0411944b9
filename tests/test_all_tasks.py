"""Every task tried a little: what passes, what fails without ending the others, and wrong arguments."""

import re
import sys
import warnings

import numpy as np
import pytest

from environments import registry
from environments.cartpole import CartPoleCfg, CartPoleEnv
from examples.all_tasks import ROBOTS, main, trials


class Broken(CartPoleEnv):
    def physics(self):
        if self.first_robot == 0:  # of the parts that threads step the one that is waited for
            print("chatter")
            warnings.warn("chatter", stacklevel=1)
            raise RuntimeError("the pole is gone\nand the cart")


class Leaves(CartPoleEnv):
    def physics(self):
        sys.exit(3)


class Lost(CartPoleEnv):
    def step(self, actions, out=None):
        state = super().step(actions, out)
        state.reward[:] = np.nan
        return state


class Interrupted(CartPoleEnv):
    def physics(self):
        raise KeyboardInterrupt


def unmade():
    raise OSError("no model file")


@pytest.fixture
def short(monkeypatch):
    """Tasks of episodes that end soon."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    for make in (CartPoleEnv, Broken, Leaves, Lost, Interrupted):
        registry.envcfg(f"short-{make.__name__}")(lambda: CartPoleCfg(max_episode_seconds=0.3))
        registry.env(f"short-{make.__name__}")(make)
    registry.envcfg("short-unmade")(unmade)
    registry.env("short-unmade")(CartPoleEnv)


def table(out):
    """Return the rows of the table, by task."""
    lines = out.split("\n\n")[1].splitlines()
    columns = ["task", "robot", "device", "env steps/s", "mean return", "seconds", "result"]
    assert re.split(r"\s{2,}", lines[0]) == columns
    return {row[0]: row for row in (re.split(r"\s{2,}", line) for line in lines[1:])}


def test_tasks_that_work_pass(capsys):
    assert main(["--tasks", "cartpole", "navigation", "--devices", "cpu", "--iterations", "1", "--num-envs", "16"]) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert (
        list(rows) == ["cartpole", "navigation"]
        and err == ""
        and out.rstrip().splitlines()[-1].startswith("2 runs, 0 failed")
    )
    for task, (name, robot, device, rate, mean, seconds, result) in rows.items():
        assert (
            (name, robot, device, result) == (task, "-", "cpu", "pass")
            and rate[0] in "123456789"
            and float(seconds) > 0
        )
        assert (
            f"{task} / - on cpu: {rate} env steps/s, return {mean}, {seconds} s, pass"
            == out.splitlines()[list(rows).index(task)]
        )
    assert 1 < float(rows["cartpole"][4]) < 500


def test_what_fails_is_told_of_and_the_others_run(short, capsys):
    names = [f"short-{name}" for name in ("Broken", "Leaves", "unmade", "Lost", "CartPoleEnv")]
    assert main(["--tasks", *names, "--devices", "cpu", "--iterations", "2", "--num-envs", "16"]) == 1
    out, err = capsys.readouterr()
    results = {name.removeprefix("short-"): row[6] for name, row in table(out).items()}
    assert results["CartPoleEnv"] == "pass" and list(results) == [name.removeprefix("short-") for name in names]
    assert results["Broken"] == "FAIL: RuntimeError: the pole is gone" and results["Leaves"] == "FAIL: SystemExit: 3"
    assert results["unmade"] == "FAIL: OSError: no model file"
    assert results["Lost"] == "FAIL: ArithmeticError: training did not recover from numbers that are not finite"
    assert "chatter" not in out + err and err == "" and len(out.splitlines()) == 5 + 1 + 6 + 2
    assert out.rstrip().splitlines()[-1].startswith("5 runs, 4 failed")


def test_ctrl_c_ends_it_with_what_there_is(short, capsys):
    tasks = ["short-CartPoleEnv", "short-Interrupted", "cartpole"]
    assert main(["--tasks", *tasks, "--devices", "cpu", "--iterations", "1", "--num-envs", "16"]) == 130
    assert list(table(capsys.readouterr().out)) == ["short-CartPoleEnv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--tasks", "cartpole", "chess"],
            "--tasks: unknown task 'chess'; known: quadruped-balance, .*cartpole, navigation",
        ),
        (["--iterations", "0"], "argument --iterations: expected a whole number of at least 1, got '0'"),
        (["--num-envs", "x"], "argument --num-envs: expected a whole number of at least 1, got 'x'"),
        (["--devices", "tpu"], "argument --devices: invalid choice: 'tpu'"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and re.match(f"all_tasks.py: {words}", err)


def test_a_quadruped_is_every_robot_unless_the_task_names_one(short):
    assert {"anymal_c", "go1", "go2", "spot"} <= set(ROBOTS)
    assert [(t.task, t.robot, t.device) for t in trials(["quadruped-goal"], ["cpu"])] == [
        ("quadruped-goal", robot, "cpu") for robot in ROBOTS
    ]
    found = [(t.robot, t.device) for t in trials(["anymal-navigation", "cartpole"], ["cpu", "cuda"])]
    assert found == [("anymal_c", "cpu"), ("anymal_c", "cuda"), ("", "cpu"), ("", "cuda")]
