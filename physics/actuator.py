"""Motors: a torque command or a PD law on a joint target, cut at the torque limit."""

import numpy as np

from physics.jit import inline, real


@inline
def motor_torque(target, feedforward, q, qd, kp, kd, limit):
    """Return the torque of a motor [N m]: kp (target - q) - kd qd + feedforward, within +-limit."""
    torque = kp * (target - q) - kd * qd + feedforward
    return min(max(torque, -limit), limit)


@inline
def joint_resistance(qd, damping, friction, friction_speed):
    """Return the coefficient c of the torque -c qd that damping and dry friction exert [N m s/rad].

    Dry friction is friction * qd / sqrt(qd^2 + vs^2): Coulomb's law, rounded off below the speed vs.
    """
    return damping + friction / np.sqrt(qd * qd + friction_speed * friction_speed)


@inline
def limit_torque(q, qd, low, high, stiffness, damping, dt):
    """Return the torque of a joint's end stop and its implicit coefficient [N m], [N m s/rad].

    A spring of the given stiffness [N m/rad] with a damper [N m s/rad] outside of [low, high]
    [rad]; the coefficient d + k dt makes it linearly implicit, as the foot contact is.
    """
    beyond = min(q - low, real(0.0)) + max(q - high, real(0.0))
    c = damping + stiffness * dt if beyond != real(0.0) else real(0.0)
    return -stiffness * beyond - c * qd, c
