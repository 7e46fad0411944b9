"""Foot contact: a spring and damper along the normal, Coulomb friction across it, linearly implicit.

Explicit spring-dampers are either too soft to agree with other engines or blow up. Here the force
at the end of the step enters the equations of motion to first order: beside the force of this
instant, the contact adds a matrix dt (ct (1 - n n^T) + cn n n^T) to the inertia of the calf, at
the contact point, and so stays stable when stiff.
"""

import numpy as np

from physics.jit import inline, real
from physics.spatial import add, cross, dot, scale


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
def add_contact(inertia, p, up, alpha, beta):
    """Return an articulated inertia plus the contact matrix alpha 1 + beta n n^T at the point p."""
    a, b, m = inertia
    # the isotropic part is a point mass: A += alpha (p.p 1 - p p^T), B += alpha [p]x
    w = cross(p, up)
    q = scale(alpha, p)
    s = dot(q, p)
    bw = scale(beta, w)
    bn = scale(beta, up)
    return (
        (
            a[0] + s - q[0] * p[0] + bw[0] * w[0], a[1] - q[0] * p[1] + bw[0] * w[1], a[2] - q[0] * p[2] + bw[0] * w[2],
            a[3] + s - q[1] * p[1] + bw[1] * w[1], a[4] - q[1] * p[2] + bw[1] * w[2],
            a[5] + s - q[2] * p[2] + bw[2] * w[2],
        ),
        (
            b[0] + bw[0] * up[0], b[1] - q[2] + bw[0] * up[1], b[2] + q[1] + bw[0] * up[2],
            b[3] + q[2] + bw[1] * up[0], b[4] + bw[1] * up[1], b[5] - q[0] + bw[1] * up[2],
            b[6] - q[1] + bw[2] * up[0], b[7] + q[0] + bw[2] * up[1], b[8] + bw[2] * up[2],
        ),
        (
            m[0] + alpha + bn[0] * up[0], m[1] + bn[0] * up[1], m[2] + bn[0] * up[2],
            m[3] + alpha + bn[1] * up[1], m[4] + bn[1] * up[2],
            m[5] + alpha + bn[2] * up[2],
        ),
    )  # fmt: skip


@inline
def implicit_force(alpha, beta, up, a):
    """Return (alpha 1 + beta n n^T) a: how much the force of the instant falls over the step [N]."""
    return add(scale(alpha, a), scale(beta * dot(up, a), up))
