"""Reward terms of the quadruped, one function each; its weight in config.RewardCfg has the same name.

Terms with a negative weight are costs. Weights are per second of simulated time.
"""

from physics.jit import inline, real
from physics.spatial import exp


@inline
def tracking(error2):
    """Return 1 for no error, falling off twice: (exp(-4 e^2) + exp(-e^2)) / 2."""
    return real(0.5) * (exp(real(-4.0) * error2) + exp(-error2))


@inline
def goal(offset):
    """Centre of mass near the goal; offset (3) [m], 1/e at 0.15 m."""
    return exp(-(offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2]) * real(44.4))


@inline
def stillness(v):
    """No horizontal velocity; v (3) world frame [m/s]."""
    return tracking(v[0] * v[0] + v[1] * v[1])


@inline
def yaw(spin):
    """No yaw rate; spin (3) base frame [rad/s]."""
    return tracking(spin[2] * spin[2])


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
