"""Foot contact: a spring and damper along the normal, Coulomb friction across it, linearly implicit.

Explicit spring-dampers are either too soft to agree with other engines or blow up. Here the force
at the end of the step enters the equations of motion to first order: beside the force of this
instant, the contact adds a matrix dt (ct (1 - n n^T) + cn n n^T) to the inertia of the calf, at
the contact point, and so stays stable when stiff.
"""

import numpy as np

from physics.jit import inline, real
from physics.spatial import add, dot, scale


@inline
def foot_contact(height, up, v, stiffness, damping, friction, slip_speed, dt):
    """Return the contact force of this instant and what it adds to the inertia.

    fn = max(0, -k h - (d + k dt) vn),  ct = mu fn / sqrt(vt^2 + vs^2),  f = fn n - ct vt

    height: of the foot's lowest point above the ground [m]; up: ground normal; v: velocity of
    the contact point [m/s]; stiffness k [N/m]; damping d [N s/m]; friction mu; slip_speed vs
    [m/s], at which friction reaches 70 % of its limit; dt [s].

    Returns force f (3) [N], alpha = dt ct and beta = dt (cn - ct) [kg], so that the matrix is
    alpha 1 + beta n n^T.
    """
    normal_damping = damping + stiffness * dt
    vn = dot(v, up)
    fn = max(real(0.0), -stiffness * height - normal_damping * vn)
    tangential = max(real(0.0), dot(v, v) - vn * vn)
    ct = friction * fn / np.sqrt(tangential + slip_speed * slip_speed)
    cn = normal_damping if fn > real(0.0) else real(0.0)
    force = add(scale(fn + ct * vn, up), scale(-ct, v))
    return force, dt * ct, dt * (cn - ct)


@inline
def implicit_force(alpha, beta, up, a):
    """Return (alpha 1 + beta n n^T) a: how much the force of the instant falls over the step [N]."""
    return add(scale(alpha, a), scale(beta * dot(up, a), up))
