"""Walk, seeing foot heights and the torque-ish PD lag of the thighs."""

from environments.quadruped import observation, task


@observation(columns=4, scale=10.0, mirror="feet", node="legs")
def heights(foot_height):
    """Height of each foot above the ground [m]."""
    return foot_height


@observation(columns=4, mirror="feet", node="legs")
def thigh_lag(joint_position, joint_target, gain=1.0):
    """Target of each thigh less its angle, times a gain [rad].

    gain: times which it is seen
    """
    return gain * (joint_target[1] - joint_position[1])


task("walk-seeing", "quadruped-walk-flat", "walk, knowing feet and thighs", observations=[heights, thigh_lag])
