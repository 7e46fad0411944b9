"""Contact with the ground: a spring and damper along the normal, friction across it, linearly implicit.

Explicit spring-dampers are either too soft to agree with other engines or blow up. Here the damper's
and the friction's force at the end of the step enter the equations of motion to first order: beside
the force of this instant, the contact adds a matrix dt (ct (1 - n n^T) + cn n n^T) to the inertia of
the link, at the contact point, and so stays stable when stiff. A grip time longer than dt takes its place with ct.

Under the flat floor the normal is up. On a terrain a foot meets the plane through the point of the
surface vertically below it: gap = (z - h) n_z - radius.
"""

import numpy as np

from physics import constants as C
from physics import layout as L
from physics import terrain as T
from physics.jit import LANES, inline, real
from physics.layout import load3, vary
from physics.spatial import add, dot, scale, unrotate


def largest_timestep(stiffness: float, foot_mass: float) -> float:
    """Return the time step beyond which contacts may gain energy or jitter [s]: min(0.01, 1.6 sqrt(m / k)).

    A foot of mass m that meets the ground at speed v is at most v dt deep at the end of that step. With
    cn = k dt / 2 it leaves the next one at v (a - 1) / (1 + a / 2), a = k dt^2 / m, which is v at a = 4:
    dt = 2 sqrt(m / k). Knees, other poses and all four feet at once take a fifth off, as measured by
    benchmarks/stiffness.py.

    stiffness: k [N/m]; foot_mass: m, Robot.foot_mass() [kg].
    """
    return min(0.01, 1.6 * (foot_mass / stiffness) ** 0.5)


@inline
def contact_force(gap, normal, v, law, dt):
    """Return the contact force of this instant and what it adds to the inertia.

    fn = max(0, -k gap - r k p - cn vn),  cn = d + k dt / 2 + r k p / sqrt(vn^2 + vs^2)
    ct = min(mu fn / sqrt(vt^2 + vs^2) + cv, (mu_k + mu_s) fn / sqrt(vt^2 + vs^2)),
    mu = mu_k + mu_s w^2 / (w^2 + vt^2),  f = fn n - ct vt

    p = max(0, -gap) is the depth and r = (1 - e^2) / 2: the spring pushes with k p on the way in and
    e^2 k p on the way out, so that a bounce without damper gives back the share e of the speed,
    whatever the mass. With k dt / 2 the spring is that of the middle of the step, which keeps it from
    gaining energy and converges fastest: of a trot, 0.9 % from the solution at 2.5 ms, against 1.2 %
    with the gap of its start and 1.4 % with that of its end. It also costs the bounce a share of about
    pi / 8 (1 + 1 / e) sqrt(k / m) dt: of 3.2 kg at 2e4 N/m and 2.5 ms 14 % for e = 1, 24 % for e = 0.5.
    Speeds not far above vs bounce higher than e asks, 1 m/s with 0.12 for e = 0. Friction never leaves
    the cone of its static coefficient.

    Without a grip time, T = 0, a step brings a foot to rest that friction can hold. With one, friction is that of
    the velocity at T from now, not at the end of the step: ct has a weight of T in the matrix. It bears
    what pushes a foot, which creeps no more than without, but takes a slip away only within T, as MuJoCo's does:
    there at a rate of 2 / (0.95 x 20 ms), unless a model says otherwise. A foot of mass m that slips much faster
    than mu fn T / m meets all of the friction there is.

    gap: of the link's surface above the ground [m]; normal: unit, of the ground; v: velocity of the
    contact point [m/s]; law: stiffness k [N/m], damping d [N s/m], restitution e, kinetic friction
    mu_k, what static friction adds mu_s, Stribeck speed w [m/s], viscous friction cv [N s/m], vs [m/s], at
    which friction reaches 70 % of its limit, grip time T [s]; dt [s].

    Returns force f (3) [N], alpha = max(dt, T) ct and beta = dt cn - alpha [kg], so that the matrix is
    alpha 1 + beta n n^T.
    """
    stiffness, damping, restitution, kinetic, static, stribeck_speed, viscous, slip_speed, grip_time = law
    zero = real(0.0)
    loss = real(0.5) - real(0.5) * restitution * restitution
    vn = dot(v, normal)
    vs2 = slip_speed * slip_speed
    lost = loss * stiffness * max(zero, -gap)
    cn = damping + real(0.5) * stiffness * dt + lost / np.sqrt(vn * vn + vs2)
    fn = max(zero, -stiffness * gap - lost - cn * vn)
    vt2 = max(zero, dot(v, v) - vn * vn)
    w2 = stribeck_speed * stribeck_speed
    mu = kinetic + static * w2 / (w2 + vt2)
    per_speed = fn / np.sqrt(vt2 + vs2)
    ct = min(mu * per_speed + viscous, (kinetic + static) * per_speed)
    cn = cn if fn > zero else zero
    alpha = max(dt, grip_time) * ct
    return add(scale(fn + ct * vn, normal), scale(-ct, v)), alpha, dt * cn - alpha


@inline
def implicit_force(alpha, beta, normal, a):
    """Return (alpha 1 + beta n n^T) a: how much the force of the instant falls over the step [N]."""
    return add(scale(alpha, a), scale(beta * dot(normal, a), normal))


@inline
def per_metre(terrain):
    """Return how many cells of the terrain there are in a metre; 0 for the flat floor."""
    if terrain is None:
        return real(0.0)
    return real(terrain[1][1][T.PER_METRE])


@inline
def surface(terrain, cells, work, patch, lane, point_B):
    """Return how far a point is above the ground along its normal [m], and the normal, in the base frame.

    point_B: (3), base frame [m]; cells: per_metre(terrain); patch: rows of the work buffer that find_patch() and
    look_up() filled for the point.
    """
    up_B = load3(work, L.ROTATION + 6, lane)
    height = work[(L.POSITION + 2) * LANES + lane] + dot(up_B, point_B)
    if terrain is None:
        return height, up_B
    i = patch * LANES + lane
    h00, h10, h01, h11 = work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]
    s, t = work[i + 4 * LANES], work[i + 5 * LANES]
    low, high = h00 + s * (h10 - h00), h01 + s * (h11 - h01)
    dx = cells * (h10 - h00 + t * (h11 - h01 - h10 + h00))
    dy = cells * (high - low)
    nz = real(1.0) / np.sqrt(real(1.0) + dx * dx + dy * dy)
    r = up_B
    x_B, y_B = load3(work, L.ROTATION, lane), load3(work, L.ROTATION + 3, lane)
    normal_B = unrotate(x_B + y_B + r, (-dx * nz, -dy * nz, nz))
    return nz * (height - low - t * (high - low)), normal_B


@inline
def upright(terrain, work, lane, gap, normal_B):
    """Return a gap along the ground's normal as the height [m] that closes it."""
    if terrain is None:
        return gap
    return gap / dot(normal_B, load3(work, L.ROTATION + 6, lane))


@inline
def find_patch(whole, cells, work, patch, lane, point_B):
    """Set a patch to the four nodes about a point (3), in the base frame, and where it lies among them."""
    x_B, y_B = load3(work, L.ROTATION, lane), load3(work, L.ROTATION + 3, lane)
    last_x, last_y = real(whole[T.NX] - 1), real(whole[T.NY] - 1)
    first_x, first_y = real(whole[T.FIRST_X]), real(whole[T.FIRST_Y])
    zero = real(0.0)
    one = real(1.0)
    u = cells * (work[L.POSITION * LANES + lane] + dot(x_B, point_B))
    v = cells * (work[(L.POSITION + 1) * LANES + lane] + dot(y_B, point_B))
    i, j = np.floor(u), np.floor(v)
    ix = i + (work[L.ORIGIN * LANES + lane] * cells - first_x)
    iy = j + (work[(L.ORIGIN + 1) * LANES + lane] * cells - first_y)
    k = patch * LANES + lane
    # in this order what is not a number becomes 0, and no node lies outside the field
    work[k] = min(max(zero, ix), last_x)
    work[k + LANES] = min(max(zero, ix + one), last_x)
    work[k + 2 * LANES] = min(max(zero, iy), last_y)
    work[k + 3 * LANES] = min(max(zero, iy + one), last_y)
    work[k + 4 * LANES] = u - i
    work[k + 5 * LANES] = v - j


@inline
def look_up(heights, nx, work, patch):
    """Replace the nodes of a patch by their heights: the one loop that takes the lanes one by one."""
    rows = work[patch * LANES : (patch + 4) * LANES]
    for lane in range(LANES):
        x0, x1 = np.uint32(np.int32(rows[lane])), np.uint32(np.int32(rows[lane + LANES]))
        y0, y1 = np.uint32(np.int32(rows[lane + 2 * LANES])) * nx, np.uint32(np.int32(rows[lane + 3 * LANES])) * nx
        rows[lane], rows[lane + LANES] = heights[np.uint32(y0 + x0)], heights[np.uint32(y0 + x1)]
        rows[lane + 2 * LANES], rows[lane + 3 * LANES] = heights[np.uint32(y1 + x0)], heights[np.uint32(y1 + x1)]


@inline
def look_up_grip(grip, nx, work, patch):
    """Set GRIP to that of the nearest node of a patch, before look_up() replaces the nodes."""
    if grip is not None:
        rows = work[patch * LANES : (patch + 6) * LANES]
        half = real(0.5)
        for lane in range(LANES):
            x = rows[lane] if rows[lane + 4 * LANES] < half else rows[lane + LANES]
            y = rows[lane + 2 * LANES] if rows[lane + 5 * LANES] < half else rows[lane + 3 * LANES]
            work[L.GRIP * LANES + lane] = grip[np.uint32(np.uint32(np.int32(y)) * nx + np.uint32(np.int32(x)))]


@inline
def on_ground(terrain, work, lane, friction):
    """Return a coefficient of friction as the ground has it at the point that look_up_grip() saw last."""
    if terrain is None:
        return friction
    return gripped(terrain[2], work, lane, friction)


@inline
def gripped(grip, work, lane, friction):
    """Return a coefficient of friction times GRIP, where there is one."""
    if grip is None:
        return friction
    return friction * work[L.GRIP * LANES + lane]


@inline
def contact_law(world):
    """Return the world's constants of contact, in the order of contact_force()."""
    friction = world[C.KINETIC], world[C.STATIC], world[C.STRIBECK_SPEED], world[C.VISCOUS], world[C.SLIP_SPEED]
    return (
        (world[C.STIFFNESS], world[C.CONTACT_DAMPING], world[C.RESTITUTION]),
        friction,
        world[C.GRIP_TIME],
    )


@inline
def own_law(varied, terrain, work, lane, law):
    """Return the contact law of a robot where it is, in the order of contact_force()."""
    (stiffness, damping, restitution), (kinetic, static, stribeck_speed, viscous, slip_speed), grip_time = law
    i = L.VARIED_BASE
    stiffness, restitution = (
        vary(varied, work, i + L.V_STIFFNESS, lane, stiffness),
        vary(varied, work, i + L.V_RESTITUTION, lane, restitution),
    )
    kinetic, static = (
        vary(varied, work, i + L.V_KINETIC, lane, kinetic),
        vary(varied, work, i + L.V_STATIC, lane, static),
    )
    kinetic, static = on_ground(terrain, work, lane, kinetic), on_ground(terrain, work, lane, static)
    grip_time = vary(varied, work, i + L.V_GRIP_TIME, lane, grip_time)
    return stiffness, damping, restitution, kinetic, static, stribeck_speed, viscous, slip_speed, grip_time
