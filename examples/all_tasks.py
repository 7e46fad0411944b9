"""Train every task a little on every device and evaluate what came of it: python -m examples.all_tasks.

A quadruped's task is run with every robot. A run fails by what it raises and by a number that is
not finite in its log or evaluation; the others run all the same. Exit code: 0, 1 if any failed, 2
for wrong arguments, 130 if interrupted.
"""

import argparse
import csv
import io
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from physics.jit import ROOT  # sets what PyTorch reads when imported  # isort: skip
import torch
from rich.console import Console

from environments import registry
from settings import ConfigError
from simulate import System
from training.display import count_text, silence
from training.presets import preset

ROBOTS = sorted(path.stem for path in (ROOT / "robots").glob("*.json"))
HEADING = "task", "robot", "device", "env steps/s", "mean return", "seconds", "result"


@dataclass
class Trial:
    """A task to be run on a device, and how it went; robot: the model, empty where a task has none."""

    task: str
    robot: str
    device: str
    rate: float = math.nan  # env steps per second of training
    mean_return: float = math.nan  # of the evaluation
    seconds: float = 0.0  # in all
    reason: str = ""  # why it failed, empty if it passed

    def cells(self) -> tuple[str, ...]:
        """Return what stands below HEADING."""
        rate, mean = (
            "-" if math.isnan(x) else text(x)
            for x, text in ((self.rate, count_text), (self.mean_return, "{:.2f}".format))
        )
        return (
            self.task,
            self.robot or "-",
            self.device,
            rate,
            mean,
            f"{self.seconds:.1f}",
            f"FAIL: {self.reason}" if self.reason else "pass",
        )


def trials(tasks: Iterable[str], devices: Iterable[str]) -> list[Trial]:
    """Return what there is to run, in order."""
    return [Trial(task, robot, device) for task in tasks for robot in robots(task) for device in devices]


def robots(task: str) -> list[str]:
    """Return the robots that a task is run with."""
    try:
        model = str(getattr(registry.default_cfg(task), "model", ""))
    except Exception:  # a configuration that cannot be made is told of by its trial
        return [""]
    return ROBOTS if task.startswith("quadruped-") and model in ROBOTS else [model]


def attempt(trial: Trial, iterations: int, num_envs: int) -> None:
    """Run a trial and fill in how it went."""
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder, silence():
            train(trial, iterations, num_envs, pathlib.Path(folder))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a task that leaves Python must not end the others either
        lines = str(error).strip().splitlines()
        trial.reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    trial.seconds = time.perf_counter() - start


def train(trial: Trial, iterations: int, num_envs: int, folder: pathlib.Path) -> None:
    """Train and evaluate as the command line does; raise ArithmeticError, naming it, for a number not finite."""
    changes = {
        "train.iterations": iterations,
        "train.num_envs": num_envs,
        "train.eval_episodes": num_envs,
        "train.device": trial.device,
        "train.run_dir": str(folder / "runs"),
        **({"env.model": trial.robot} if trial.robot else {}),
    }
    system = System(registry.changed(preset(trial.task), changes), Console(file=io.StringIO()))
    code = system.train()
    if code == 3:
        raise ArithmeticError("training did not recover from numbers that are not finite")
    if code:
        raise KeyboardInterrupt
    (log,) = (folder / "runs").glob("*/metrics.csv")
    with open(log, newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    result = system.evaluate(num_envs)
    trial.rate = rows[-1]["rate"]
    trial.mean_return = result["mean_return"]
    for row in rows:
        require_finite(row, f"in iteration {row['iteration']:.0f}")
    require_finite({name: value for name, value in result.items() if not isinstance(value, str)}, "in the evaluation")


def require_finite(values: dict[str, float], where: str) -> None:
    """Raise ArithmeticError, naming them, if there are values that are not finite."""
    broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise ArithmeticError(f"{', '.join(broken)} {where}")


def print_table(done: Sequence[Trial]) -> None:
    """Print all trials, columns aligned, and how many failed."""
    rows = [HEADING, *(trial.cells() for trial in done)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print(
            "  ".join(
                cell.rjust(w) if 3 <= i <= 5 else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
    print(
        f"\n{len(done)} runs, {sum(bool(trial.reason) for trial in done)} failed, "
        f"{sum(trial.seconds for trial in done):.0f} s"
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def positive(text: str) -> int:
    """Return a whole number of at least 1; raise ArgumentTypeError for anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def read_command_line(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; raise ConfigError for wrong ones, an unknown task, or a device that is not there."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser = _Parser(prog="all_tasks.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--iterations", type=positive, default=3, metavar="N", help="of every training (3)")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="instead of every registered one")
    parser.add_argument(
        "--devices", nargs="+", choices=("cpu", "cuda"), default=devices, help="instead of every one that is there"
    )
    parser.add_argument(
        "--num-envs",
        type=positive,
        default=64,
        metavar="N",
        help="copies of a task, and episodes of an evaluation (64)",
    )
    options = parser.parse_args(arguments)
    known = registry.list_registered_envs()
    options.tasks = options.tasks or list(known)
    for task in options.tasks:
        if not registry.contains(task):
            raise ConfigError(f"--tasks: unknown task {task!r}; known: {', '.join(known)}")
    if absent := [device for device in options.devices if device not in devices]:
        raise ConfigError(f"--devices: expected {' or '.join(devices)}, PyTorch finds no GPU, got {absent[0]!r}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the trials asked for; return an exit code."""
    try:
        options = read_command_line(arguments)
    except ConfigError as error:
        print(f"all_tasks.py: {error}", file=sys.stderr)
        return 2
    done: list[Trial] = []
    code = 0
    try:
        for trial in trials(options.tasks, options.devices):
            attempt(trial, options.iterations, options.num_envs)
            done.append(trial)
            task, robot, device, rate, mean, seconds, result = trial.cells()
            print(f"{task} / {robot} on {device}: {rate} env steps/s, return {mean}, {seconds} s, {result}", flush=True)
    except KeyboardInterrupt:
        code = 130
    print_table(done)
    return code or int(any(trial.reason for trial in done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
