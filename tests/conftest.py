"""Puts the repository on the path; physics comes before torch, for it sets how torch's threads wait."""

import gc
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import physics  # noqa: F401  # isort: skip
import numpy as np
import pytest

from environments import registry
from environments.quadruped.tasks import TASKS
from environments.quadruped.terms import COMMANDS
from host import available_cores
from physics import load_robot
from physics.jit import ROOT
from physics.mjcf import to_mjcf

# Files in processes at once share the cores: two threads of each on two cores waited for one another 12 % of the time
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(available_cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]) or 1)
    )

# Files that take minutes, the longest first: one that began last would leave the other process without work
LONG = (
    "test_programs.py",
    "test_commands.py",
    "test_own_task.py",
    "test_fuzz.py",
    "test_world_model.py",
    "test_resume.py",
)

gc.set_threshold(100_000, 50, 100)  # looking for garbage as often as usual takes 8 % of compiling


def pytest_collection_modifyitems(items):
    """Begin with files that take long."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Draw no learning curve of a run, 0.3 s each; who looks at one trains before, or calls plot_curve() itself."""
    if "training.logger" in sys.modules:
        monkeypatch.setattr(sys.modules["training.logger"], "plot_curve", lambda *_: False)


@pytest.fixture
def seeded():
    """Begin torch's random numbers anew; tests of physics alone do not wait for torch."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def threads_as_before():
    """Leave the number of torch's threads as it was."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workplace(tmp_path, monkeypatch, threads_as_before):
    """A folder with the shipped checkpoints, to be in."""
    shutil.copytree(ROOT / "checkpoints", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    return tmp_path


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a text to a file and returns the file."""

    def write(text, name="robot.xml"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


@pytest.fixture(scope="module")
def go1():
    """Return the robot as MJCF."""
    return to_mjcf(load_robot("go1"))


@pytest.fixture(scope="module")
def no_trace():
    """Leave the tasks and commands that others know as they were."""
    known = registry._TASKS, TASKS, COMMANDS
    before = [dict(names) for names in known]
    yield
    for names, old in zip(known, before, strict=True):
        names.clear()
        names.update(old)


@pytest.fixture(params=["xvfb", "software"])
def drawn(request, tmp_path):
    """Return a function that runs a text in a process that draws in one way, and returns the arrays that it saves."""

    def draw(text):
        target = tmp_path / "pictures.npz"
        command = [sys.executable, "-c", text, request.param, str(target)]
        run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
        if run.returncode and "no display to record on" in run.stderr:
            pytest.skip(f"{request.param}: not installed here")
        assert run.returncode == 0, run.stderr
        assert run.stdout == run.stderr == ""  # standard output belongs to the program
        return {name: array if name == "camera" else array.astype(int) for name, array in np.load(target).items()}

    return draw
