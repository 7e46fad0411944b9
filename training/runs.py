"""Runs: each has a folder of its own, and in it what it learnt.

    runs/TASK-DATE-TIME/
        latest.pt                   the run as it was some seconds ago, to go on from
        best.pt                     the policy of the best evaluation so far
        iteration-N.pt              those of the last few evaluations
        config.json metrics.csv events.* curve.png

What comes with Foal is in checkpoints/ and is never written.
"""

import contextlib
import datetime
import itertools
import json
import pathlib
import re
import sys
import warnings

from physics.jit import INSTALLED, ROOT
from settings import ConfigError
from training.files import reason

SHIPPED = ROOT / "checkpoints"
CONFIG = "config.json"
LATEST = "latest.pt"
BEST = "best.pt"
NEWEST = 20  # runs whose policies are offered
NAME = re.compile(r"(.+)-\d{8}-\d{6}(-\d+)?")


def command() -> str:
    """Return how to run Foal from the current folder."""
    if INSTALLED:
        return "foal"
    here = pathlib.Path.cwd() == ROOT
    return f"python {'simulate.py' if here else ROOT / 'simulate.py'}"


def program() -> list[str]:
    """Return what the words of a process begin with that runs Foal with this Python."""
    return [sys.executable, str(ROOT / "simulate.py")]


def module(name: str) -> str:
    """Return how to run a module of Foal from the current folder."""
    if INSTALLED:
        return f"python -m foal.{name}"
    return f"python -m {name}" if pathlib.Path.cwd() == ROOT else f"PYTHONPATH={ROOT} python -m {name}"


def short(task: str) -> str:
    """Return a task's name without the module that it is in."""
    return task.rpartition(":")[2]


def new_folder(root: str, task: str) -> pathlib.Path:
    """Make the folder of a new run, one that nobody else has; raise ConfigError if there can be none."""
    stem = f"{short(task)}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = pathlib.Path(root) / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir():  # what is in the way is above it
                raise ConfigError(f"train.run_dir: expected a folder, got {root}") from None
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise ConfigError(
                f"train.run_dir: expected a folder that can be written, got {root!s:.80} ({why})"
            ) from None
        else:
            return folder


def is_run(folder: pathlib.Path) -> bool:
    """Return whether a folder is a run's."""
    return (folder / CONFIG).is_file()


def task_of(folder: pathlib.Path) -> str | None:
    """Return the task that a run's folder says it is of."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((folder / CONFIG).read_text()).get("task")
    return None


def newest(root: str, task: str, names: tuple[str, ...]) -> pathlib.Path | None:
    """Return the first there is of files of the run of a task that was written last; None without such a run.

    Warns of a run that began later and has none of them.
    """
    found = []
    empty = []
    with contextlib.suppress(OSError):
        for folder in pathlib.Path(root).iterdir():
            match = NAME.fullmatch(folder.name)
            if not match or match[1] != short(task) or task_of(folder) != task:
                continue
            file = next((folder / name for name in names if (folder / name).is_file()), folder / CONFIG)
            (found if file.name != CONFIG else empty).append((file.stat().st_mtime_ns, folder.name, file))
    newest_run = max(found)[2] if found else None
    if empty and max(empty) > max(found, default=(0,)):
        instead = f"taking {newest_run}" if newest_run else "it is passed over"
        warnings.warn(f"{max(empty)[2].parent} ended before anything was saved; {instead}", stacklevel=2)
    return newest_run


def policy(given: str) -> pathlib.Path:
    """Return the checkpoint that is meant: a file, the folder of a run, or a task's that comes with Foal."""
    shipped = SHIPPED / f"{given}.pt"
    return shipped if shipped.is_file() else find(given, "", "")


def policies(root: str) -> list[pathlib.Path]:
    """Return the policies there are: those that come with Foal, and the best of the newest runs in a folder."""
    runs = []
    with contextlib.suppress(OSError):
        runs = sorted(pathlib.Path(root).glob(f"*/{BEST}"), key=lambda file: -file.stat().st_mtime_ns)
    return [*sorted(SHIPPED.glob("*.pt"), key=lambda file: file.stem), *runs[:NEWEST]]


def find(given: str | None, root: str, task: str, resume: bool = False) -> pathlib.Path:
    """Return the checkpoint that is meant.

    given: a file or the folder of a run; None for the newest run of the task in root, else what comes with Foal.
    resume: whether a run is to go on, from its latest state; else its best policy is asked for.

    Raises ConfigError if there is none.
    """
    names = (LATEST, BEST) if resume else (BEST, LATEST)
    if given is None:
        shipped = SHIPPED / f"{short(task)}.pt"
        if path := newest(root, task, names):
            return path
        if shipped.is_file():
            return shipped
        raise ConfigError(
            f"checkpoint: expected a run of {task} in {root}, there is none; train first with: {command()}"
        )
    if not given:
        raise ConfigError("--checkpoint: expected a file or the folder of a run, got an empty name")
    path = pathlib.Path(given)
    try:
        if not path.is_dir():
            path.stat()
            return path
        inside = next((path / name for name in names if (path / name).is_file()), None)
    except FileNotFoundError:
        raise ConfigError(f"checkpoint: {path}: there is no such file or folder") from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigError(f"checkpoint: {given:.80}: {why}") from None
    if not inside:
        raise ConfigError(f"checkpoint: {path}: expected the folder of a run, with {' or '.join(names)} in it")
    return inside
