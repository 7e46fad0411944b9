"""What robots are to follow: a sheet of frames of motion, and which of them is whose.

A frame is a row of numbers, of which fields.SHEET says what they are. An environment asks for the frames of a step's
end before the step, and tells what became of the robots after it. Where frames come from is named by
``motion.source``, as "module:class" of a subclass of Reference.
"""

from typing import Any

import numpy as np

from config import QuadrupedCfg
from environments.quadruped.fields import SHEET, WIDTH, R
from physics.jit import real
from physics.robot import Robot
from settings import ConfigError, imported

COLUMNS = {f.name: slice(at, at + f.size * (4 if f.of_leg else 1)) for f in SHEET for at in [getattr(R, f.name)]}
LATER = 0.1  # how long after a frame its later_joint is [s]


class Reference:
    """Nothing to follow, and what those that follow something override.

    sheet: (R, WIDTH) frames; rows: (N) whose are to be reached with the next step; starts: (N) with which an episode
    begins that this step ends.
    """

    def __init__(self, cfg: QuadrupedCfg, robot: Robot, num_envs: int, threads: int) -> None:
        """cfg: the task's; robot: whose frames they must be; num_envs: N robots; threads: 0 for every core."""
        self.num_envs = num_envs
        self.sheet = np.zeros((1, WIDTH), real)
        self.rows = np.zeros(num_envs, np.int64)
        self.starts = self.rows

    def begin(self, seed: int, first_robot: int) -> None:
        """Start with robots from a number on; what is drawn depends on seed, clock and a robot's number alone."""

    def advance(self) -> None:
        """Go on to the frames of the next step's end."""

    def settle(self, command: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, clock: int) -> None:
        """Hear what became of the robots: commands (N, 3), whose episodes ended (N) and how."""

    def adapt(self) -> None:
        """Draw starts from now on as what has happened since suggests; for all parts at once."""

    def part(self, first: int, last: int) -> "Reference":
        """Return what follows for robots first to last - 1 alone, in a thread of their own."""
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that going on from this instant needs, not copied, by name."""
        return {}


def reference(cfg: QuadrupedCfg, robot: Robot, num_envs: int, threads: int, wanted: bool) -> Reference:
    """Return what a task's robots are to follow; wanted: whether its terms read it.

    Raises ConfigError, naming the field, where there is none or it is not what it should be.
    """
    source = cfg.motion.source
    if not wanted:
        return Reference(cfg, robot, num_envs, threads)
    if not source:
        raise ConfigError("motion.source: expected module:class of what is followed, which the task's terms read")
    module, name = imported(source, "class", "motion.source")
    made = getattr(module, name, None)
    if not (isinstance(made, type) and issubclass(made, Reference)):
        raise ConfigError(f"motion.source: expected a subclass of Reference in {module.__name__}, got {name!r}")
    return made(cfg, robot, num_envs, threads)


def columns(**given: Any) -> np.ndarray:
    """Return frames (T, WIDTH) of what fields.SHEET names, (T, size) each; what is not given is 0."""
    count = max(len(x) for x in given.values())
    sheet = np.zeros((count, WIDTH), real)
    for name, x in given.items():
        sheet[:, COLUMNS[name]] = np.reshape(x, (len(x), -1))
    return sheet
