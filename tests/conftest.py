"""Puts the repository on the path; physics comes before torch, for it sets how torch's threads wait."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import physics  # noqa: F401  # isort: skip
import pytest

from environments import registry
from environments.quadruped.tasks import TASKS
from environments.quadruped.terms import COMMANDS


@pytest.fixture(scope="module")
def no_trace():
    """Leave the tasks and commands that others know as they were."""
    known = registry._TASKS, TASKS, COMMANDS
    before = [dict(names) for names in known]
    yield
    for names, old in zip(known, before, strict=True):
        names.clear()
        names.update(old)
