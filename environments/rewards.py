"""Reward terms of the quadruped, one function each; its weight in config.RewardCfg has the same name.

Terms with a negative weight are costs. Weights are per second of simulated time, but for air_time's, arrival's and fall's.
Those of terms not found here, whose values are sums of squares that environments/quadruped_senses.py
takes, are torque, action_rate, smoothness, pose, joint_speed, feet and slip; alive is 1, arrival and fall are what they say.
"""

from physics.jit import inline, real
from physics.spatial import exp


@inline
def tracking(error2, sharp, wide):
    """Return 1 for no error, falling off twice: (exp(-sharp e^2) + exp(-wide e^2)) / 2."""
    return real(0.5) * (exp(-sharp * error2) + exp(-wide * error2))


@inline
def goal(offset):
    """Centre of mass near the goal; offset (3) [m], 1/e at 0.15 m."""
    return exp(-(offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2]) * real(44.4))


@inline
def velocity(v, desired, sharp, wide):
    """Horizontal velocity as commanded; v (3), desired (2) world frame [m/s]."""
    x, y = v[0] - desired[0], v[1] - desired[1]
    return tracking(x * x + y * y, sharp, wide)


@inline
def yaw_rate(spin, desired, sharp, wide):
    """Yaw rate as commanded; spin (3) base frame, desired [rad/s]."""
    error = spin[2] - desired
    return tracking(error * error, sharp, wide)


@inline
def vertical_velocity(v):
    """Vertical velocity squared [m^2/s^2]."""
    return v[2] * v[2]


@inline
def tumble(spin):
    """Roll and pitch rate squared [rad^2/s^2]."""
    return spin[0] * spin[0] + spin[1] * spin[1]


@inline
def orientation(up):
    """Tilt squared: up (3) is the vertical in the base frame."""
    return up[0] * up[0] + up[1] * up[1]


@inline
def height(above, home):
    """Height of the base above the ground less that at home, squared [m^2]."""
    return (above - home) * (above - home)


@inline
def stand_pose(pose2, moving):
    """Joint angle error squared [rad^2] while nothing is commanded; moving: 0 then, else 1."""
    return (real(1.0) - moving) * pose2


@inline
def knee(q, low, high):
    """Angles beyond the inner eight tenths of their ranges, squared, of thigh and calf [rad^2]; q, low, high (3) of a leg."""
    total = real(0.0)
    for joint in (1, 2):
        margin = real(0.1) * (high[joint] - low[joint])
        beyond = max(max(low[joint] + margin - q[joint], q[joint] - high[joint] + margin), real(0.0))
        total += beyond * beyond
    return total


@inline
def trot(contacts, moving):
    """Diagonal pairs of feet in turn, while moving: 1 with one pair on the ground and the other in the air.

    The share of pairs whose feet agree, times how much more of one pair than of the other is on the
    ground. contacts: (4) 1 where a foot is on the ground, FL FR RL RR; moving: 1, or 0.
    """
    fl, fr, rl, rr = contacts
    agree = real(1.0) - real(0.5) * (abs(fl - rr) + abs(fr - rl))
    return moving * agree * real(0.5) * abs(fl + rr - fr - rl)


@inline
def stopping(at_goal, v, spin):
    """Standing still at the goal: (2 exp(-(v / 0.2)^2) + 3 exp(-(w / 0.1)^4)) / 5 for speed v [m/s] and yaw rate w [rad/s] there; at_goal: 1, or 0."""
    slow, turn = (v[0] * v[0] + v[1] * v[1]) * real(25.0), spin[2] * spin[2] * real(100.0)
    return at_goal * (real(0.4) * exp(-slow) + real(0.6) * exp(-turn * turn))


@inline
def air_time(flight, moving):
    """Touchdown of a foot after a long flight: its duration up to 0.4 s less 0.2 s [s]; flight: 0 if it did not touch down [s]."""
    return moving * (min(flight, real(0.4)) - real(0.2) if flight > real(0.0) else real(0.0))
