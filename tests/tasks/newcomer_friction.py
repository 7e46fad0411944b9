"""Motors whose friction differs from robot to robot."""

from environments.quadruped import randomisation, task
from physics.random import uniform


@randomisation(sets="joint_friction")
def sticky_motors(nominal_joint_friction, key, stickiness=(0.5, 3.0)):
    """Dry friction of each joint.

    stickiness: times the model's
    """
    times = uniform(key, 0, stickiness[0], stickiness[1])
    return times * nominal_joint_friction[0], times * nominal_joint_friction[1], times * nominal_joint_friction[2]


task("walk-sticky", "quadruped-walk-flat", "walk with sticky motors", randomisations=[sticky_motors])
