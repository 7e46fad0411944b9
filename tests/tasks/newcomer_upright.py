"""An episode ends when the trunk rolls more than 0.5 rad."""

from environments.quadruped import task, termination
from physics.spatial import atan2


@termination
def rolled(up, roll=0.5):
    """The trunk's roll exceeds that.

    roll: angle [rad]
    """
    return abs(atan2(up[1], up[2])) > roll


task("walk-no-roll", "quadruped-walk-flat", "walk, never rolling much", terminations=[rolled])
