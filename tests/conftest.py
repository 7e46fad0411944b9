"""Puts the repository on the path; physics comes before torch, for it sets how torch's threads wait."""

import gc
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import physics  # noqa: F401  # isort: skip
import numpy as np
import pytest

from environments import registry
from environments.quadruped.tasks import TASKS
from environments.quadruped.terms import COMMANDS
from physics import load_robot
from physics.engine import available_cores
from physics.jit import ROOT
from physics.mjcf import to_mjcf

# Files in processes at once share the cores: two threads of each on two cores waited for one another 12 % of the time
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(available_cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]) or 1)
    )

gc.set_threshold(100_000, 50, 100)  # looking for garbage as often as usual takes 8 % of compiling


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
