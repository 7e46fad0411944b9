"""Getting up: terms of a robot that lies anyhow and is to stand."""

import math

from environments.quadruped.terms import metric, randomisation, reward, termination
from physics.random import uniform
from physics.spatial import dot, sincos

HALF_TURN = 3.1415927  # beyond, a leg's pose is another's [rad]
DROP = 0.02  # height of the lowest point above the ground from which a robot falls [m]


@randomisation(sets=("quaternion", "base_velocity", "base_spin", "clearance"))
def any_attitude(key):
    """Any attitude of the base, uniform over all, at rest, a little above the ground.

    Shoemake, 1992, "Uniform random rotations".
    """
    u = uniform(key, 0, 0.0, 1.0)
    s1, c1 = sincos(uniform(key, 1, -HALF_TURN, HALF_TURN))
    s2, c2 = sincos(uniform(key, 2, -HALF_TURN, HALF_TURN))
    a, b = math.sqrt(1.0 - u), math.sqrt(u)
    return (a * s1, a * c1, b * s2, b * c2), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), DROP


@randomisation(sets=("joint_position", "joint_velocity", "joint_target"))
def any_joints(key, joint_low, joint_high, joint_home):
    """Any angles of a leg's joints within half a turn of home, at rest, where the PD law holds them at first."""
    low, high, home = joint_low, joint_high, joint_home
    q = (
        uniform(key, 0, max(low[0], home[0] - HALF_TURN), min(high[0], home[0] + HALF_TURN)),
        uniform(key, 4, max(low[1], home[1] - HALF_TURN), min(high[1], home[1] + HALF_TURN)),
        uniform(key, 8, max(low[2], home[2] - HALF_TURN), min(high[2], home[2] + HALF_TURN)),
    )
    return q, (0.0, 0.0, 0.0), q


def stands(up, base_height, home_height):
    """Return whether a robot is level, within about 25 degrees, and nearly as high as at home."""
    return (up[2] > 0.9) & (base_height > 0.75 * home_height)


@reward
def level(up):
    """How level the base is: 1 upright, 0 on the back."""
    return 0.5 + 0.5 * up[2]


@reward
def risen(up, base_height, home_height):
    """Height of the base over that at home, at most 1, in so far as it is upright."""
    return max(up[2], 0.0) * min(max(base_height / home_height, 0.0), 1.0)


@reward
def at_home(up, base_height, home_height, pose_squared):
    """Nearness of the joints to the home pose, once the robot stands."""
    return math.exp(-0.5 * pose_squared) if stands(up, base_height, home_height) else 0.0


@reward
def at_rest(up, base_height, home_height, base_velocity, base_spin):
    """Nearness of the base to rest, once the robot stands: exp(-(v / 0.3 m/s)^2 - (w / 1 rad/s)^2)."""
    moves = 11.0 * dot(base_velocity, base_velocity) + dot(base_spin, base_spin)
    return math.exp(-moves) if stands(up, base_height, home_height) else 0.0


@termination
def lying(age, up, base_height, home_height, ctrl_dt, patience=4.0):
    """The robot does not stand any more, or yet after a while.

    patience: time that it has to get up [s]
    """
    return (age * ctrl_dt > patience) & (not stands(up, base_height, home_height))


@metric
def standing(up, base_height, home_height):
    """Whether the robot stands: in the mean, the share of time."""
    return 1.0 if stands(up, base_height, home_height) else 0.0
