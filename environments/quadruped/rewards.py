"""Reward terms, one function each; a task gives them weights.

Terms with a negative weight are costs. Weights are per second of simulated time, but for terms that count once.
"""

import math

from environments.quadruped.terms import reward


def tracking(error2, sharp, wide):
    """Return 1 for no error, falling off twice: (exp(-sharp e^2) + exp(-wide e^2)) / 2."""
    return 0.5 * (math.exp(-sharp * error2) + math.exp(-wide * error2))


@reward
def goal(goal_offset):
    """Centre of mass near the goal, 1/e at 0.15 m."""
    x, y, z = goal_offset
    return math.exp(-(x * x + y * y + z * z) * 44.4)


@reward
def velocity(base_velocity, desired_velocity, sharp=4.0, wide=1.0):
    """Tracking of the commanded horizontal velocity.

    sharp: how fast half of a tracking term falls off [s^2/m^2, s^2/rad^2]
    wide: how fast its other half does [s^2/m^2, s^2/rad^2]
    """
    x, y = base_velocity[0] - desired_velocity[0], base_velocity[1] - desired_velocity[1]
    return tracking(x * x + y * y, sharp, wide)


@reward
def yaw_rate(base_spin, command, sharp=4.0, wide=1.0):
    """Tracking of the commanded yaw rate."""
    error = base_spin[2] - command[2]
    return tracking(error * error, sharp, wide)


@reward
def vertical_velocity(base_velocity):
    """Vertical velocity squared [m^2/s^2]."""
    return base_velocity[2] * base_velocity[2]


@reward
def tumble(base_spin):
    """Roll and pitch rate squared [rad^2/s^2]."""
    return base_spin[0] * base_spin[0] + base_spin[1] * base_spin[1]


@reward
def orientation(up):
    """Tilt squared."""
    return up[0] * up[0] + up[1] * up[1]


@reward
def height(base_height, home_height):
    """Height of the base above the ground less that at home, squared [m^2]."""
    return (base_height - home_height) * (base_height - home_height)


@reward
def trunk_clearance(trunk_gap, home_height):
    """How far the trunk's lowest corner is below two fifths of the home height above the ground, squared [m^2]."""
    short = max(0.4 * home_height - trunk_gap, 0.0)
    return short * short


@reward
def torque(torque_squared, torque_ratio):
    """Motor torque squared, in proportion to what bears the robot [N^2 m^2]."""
    return torque_squared / (torque_ratio * torque_ratio)


@reward
def action_rate(action_rate_squared):
    """Change of action squared."""
    return action_rate_squared


@reward
def smoothness(action_bend_squared):
    """Change of the change of action squared."""
    return action_bend_squared


@reward
def pose(pose_squared):
    """Joint angle error squared [rad^2]."""
    return pose_squared


@reward
def stand_pose(pose_squared, moving):
    """The same while nothing is commanded."""
    return (1.0 - moving) * pose_squared


@reward
def knee(knee_squared):
    """Thigh and calf angles in the outer tenths of their ranges: how far, squared [rad^2]."""
    return knee_squared


@reward
def joint_speed(joint_speed_squared):
    """Joint velocity squared [rad^2/s^2]."""
    return joint_speed_squared


@reward
def feet(feet_share):
    """Share of feet on the ground."""
    return feet_share


@reward
def stance(feet_share, moving):
    """Share of feet on the ground while nothing is commanded."""
    return (1.0 - moving) * feet_share


@reward
def slip(slip_squared):
    """Horizontal velocity of the feet on the ground squared [m^2/s^2]."""
    return slip_squared


@reward
def trot(on_ground, moving):
    """Diagonal pairs of feet in turn while something is commanded: 1 with one pair on the ground, one in the air."""
    fl, fr, rl, rr = on_ground
    agree = 1.0 - 0.5 * (abs(fl - rr) + abs(fr - rl))  # share of pairs whose feet agree
    return moving * agree * 0.5 * abs(fl + rr - fr - rl)


@reward
def alive():
    """Being up."""
    return 1.0


@reward(once=True)
def air_time(landed, moving):
    """Each touchdown, once: duration of the flight up to 0.4 s less 0.2 s, while something is commanded [s]."""
    total = 0.0
    for leg in range(4):
        total += min(landed[leg], 0.4) - 0.2 if landed[leg] > 0.0 else 0.0
    return moving * total


@reward(once=True)
def arrival(arrived):
    """Having reached a goal, once."""
    return arrived


@reward
def stopping(at_goal, base_velocity, base_spin):
    """Standing still at the goal: (2 exp(-(v / 0.2 m/s)^2) + 3 exp(-(w / 0.1 rad/s)^4)) / 5."""
    slow = (base_velocity[0] * base_velocity[0] + base_velocity[1] * base_velocity[1]) * 25.0
    turn = base_spin[2] * base_spin[2] * 100.0
    return at_goal * (0.4 * math.exp(-slow) + 0.6 * math.exp(-turn * turn))


@reward(once=True, floored=False)
def fall(fallen):
    """Having fallen, once."""
    return fallen


LIBRARY = {
    term.name: term
    for term in (
        goal, velocity, yaw_rate, vertical_velocity, tumble, orientation, height, trunk_clearance, torque,
        action_rate, smoothness, pose, stand_pose, knee, joint_speed, feet, stance, slip, trot, alive, air_time,
        arrival, stopping, fall,
    )
}  # fmt: skip
