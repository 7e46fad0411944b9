"""The base of a robot: its kinematics, the sums over the robot that it feels, its acceleration and its step."""

import numpy as np

from physics import constants as C
from physics import layout as L
from physics.contact import (
    contact_force,
    contact_law,
    find_patch,
    implicit_force,
    look_up,
    look_up_grip,
    own_law,
    per_metre,
    surface,
)
from physics.jit import LANES, inline, real
from physics.layout import load3, load6, store3, store6, vary
from physics.leg import constant3
from physics.spatial import (
    add,
    cross,
    moment_of_rate,
    quaternion_matrix,
    quaternion_step,
    rate_matrix,
    rotate,
    scale,
    solve_symmetric6,
    unrotate,
)

UPRIGHT = 0.5  # cosine of the tilt below which a trunk's upper corners may touch the ground


@inline
def attitude(work, lane):
    """Set and return R_WB."""
    i = L.QUATERNION * LANES + lane
    r = quaternion_matrix(work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES])
    store3(work, L.ROTATION, lane, (r[0], r[1], r[2]))
    store6(work, L.ROTATION + 3, lane, r[3:])
    return r


@inline
def load_rotation(work, lane):
    """Return R_WB."""
    return load3(work, L.ROTATION, lane) + load3(work, L.ROTATION + 3, lane) + load3(work, L.ROTATION + 6, lane)


@inline
def whole_moments(varied, work, lane, mass, first, second):
    """Return mass, first and second moment that the trunk carries, a robot's own where robots differ."""
    if varied is None:
        return mass, first, second
    i = L.VARIED_BASE
    return (
        work[(i + L.V_MASS) * LANES + lane],
        load3(work, i + L.V_FIRST, lane),
        load3(work, i + L.V_SECOND, lane) + load3(work, i + L.V_SECOND + 3, lane),
    )


@inline
def base_kinematics(work, base, varied):
    """Start the sums over the robot with the base's share of mass and velocity terms."""
    mass, first = base[C.BASE_MASS], constant3(base, C.BASE_FIRST)
    second = constant3(base, C.BASE_SECOND) + constant3(base, C.BASE_SECOND + 3)
    zero = real(0.0)
    none = (zero, zero, zero)
    for lane in range(LANES):
        r = attitude(work, lane)
        store3(work, L.VELOCITY_B, lane, unrotate(r, load3(work, L.VELOCITY, lane)))
        m, f, s = whole_moments(varied, work, lane, mass, first, second)
        g = rate_matrix(load3(work, L.SPIN, lane), none)
        store3(work, L.BIAS, lane, moment_of_rate(g, s))
        store3(work, L.BIAS + 3, lane, rotate(g, f))
        work[L.MASS * LANES + lane] = m
        store3(work, L.FIRST, lane, f)
        store6(work, L.SECOND, lane, s)
        for k in range(7):
            store3(work, L.INERTIA + 3 * k, lane, none)


@inline
def add_outer(work, lane, n, f, m, g):
    """Add (n, f) (m, g)^T, which is symmetric, to the inertia that the base feels."""
    i = L.INERTIA * LANES + lane
    work[i] += n[0] * m[0]
    work[i + LANES] += n[0] * m[1]
    work[i + 2 * LANES] += n[0] * m[2]
    work[i + 3 * LANES] += n[1] * m[1]
    work[i + 4 * LANES] += n[1] * m[2]
    work[i + 5 * LANES] += n[2] * m[2]
    for k in range(3):
        j = i + (6 + 3 * k) * LANES
        work[j] += n[k] * g[0]
        work[j + LANES] += n[k] * g[1]
        work[j + 2 * LANES] += n[k] * g[2]
    i += 15 * LANES
    work[i] += f[0] * g[0]
    work[i + LANES] += f[0] * g[1]
    work[i + 2 * LANES] += f[0] * g[2]
    work[i + 3 * LANES] += f[1] * g[1]
    work[i + 4 * LANES] += f[1] * g[2]
    work[i + 5 * LANES] += f[2] * g[2]


@inline
def add_moments(work, lane, mass, first, second):
    """Add to the moments of mass about the base origin."""
    (xx, xy, xz), (yy, yz, zz) = load6(work, L.SECOND, lane)
    work[L.MASS * LANES + lane] += mass
    store3(work, L.FIRST, lane, add(load3(work, L.FIRST, lane), first))
    store6(
        work,
        L.SECOND,
        lane,
        (xx + second[0], xy + second[1], xz + second[2], yy + second[3], yz + second[4], zz + second[5]),
    )


@inline
def add_bias(work, lane, n, f):
    """Add to the moment and force that would hold the base."""
    store3(work, L.BIAS, lane, add(load3(work, L.BIAS, lane), n))
    store3(work, L.BIAS + 3, lane, add(load3(work, L.BIAS + 3, lane), f))


@inline
def add_contact(work, lane, point_B, normal_B, alpha, beta):
    """Add a contact's matrix alpha 1 + beta n n^T to the inertia that the base feels; alpha 1 is a point mass."""
    lever = cross(point_B, normal_B)
    add_outer(work, lane, scale(beta, lever), scale(beta, normal_B), lever, normal_B)
    x, y, z = point_B
    p = scale(alpha, point_B)
    add_moments(work, lane, alpha, p, (p[0] * x, p[0] * y, p[0] * z, p[1] * y, p[1] * z, p[2] * z))


@inline
def trunk_contact(work, world, base, terrain, body, varied):
    """Add the contact of the trunk's eight corners to the base's inertia and bias.

    Of the lower four alone while every robot is upright: the upper ones are straight above them, nearly, and all eight
    took a quarter of a step on stairs.
    """
    if body is not None:
        dt, gravity, law, cells = world[C.TIMESTEP], world[C.GRAVITY], contact_law(world), per_metre(terrain)
        size, centre = constant3(base, C.TRUNK_SIZE), constant3(base, C.TRUNK_CENTRE)
        one = real(1.0)
        lowest = one
        for lane in range(LANES):
            lowest = min(lowest, work[(L.ROTATION + 8) * LANES + lane])
        for corner in range(4 if lowest > real(UPRIGHT) else 8):
            x = size[0] if corner & 1 else -size[0]
            y = size[1] if corner & 2 else -size[1]
            z = size[2] if corner & 4 else -size[2]
            point = add(centre, (x, y, z))
            point_ground(work, terrain, cells, point)
            for lane in range(LANES):
                spin = load3(work, L.SPIN, lane)
                swept = cross(spin, point)
                gap, normal = surface(terrain, cells, work, L.PATCH, lane, point)
                force, alpha, beta = contact_force(
                    gap,
                    normal,
                    add(load3(work, L.VELOCITY_B, lane), swept),
                    own_law(varied, terrain, work, lane, law),
                    dt,
                )
                g_up = scale(
                    -vary(varied, work, L.VARIED_BASE + L.V_GRAVITY, lane, gravity), load3(work, L.ROTATION + 6, lane)
                )
                force = add(force, scale(-one, implicit_force(alpha, beta, normal, add(cross(spin, swept), g_up))))
                add_bias(work, lane, scale(-one, cross(point, force)), scale(-one, force))
                add_contact(work, lane, point, normal, alpha, beta)


@inline
def point_ground(work, terrain, cells, point):
    """Look up the terrain under a point (3) of the base."""
    if terrain is not None:
        heights, (whole, _), grip = terrain
        for lane in range(LANES):
            find_patch(whole, cells, work, L.PATCH, lane, point)
        look_up_grip(grip, np.uint32(whole[0]), work, L.PATCH)
        look_up(heights, np.uint32(whole[0]), work, L.PATCH)


@inline
def base_acceleration(work):
    """Solve for the acceleration of the base, less gravity: I a = -bias."""
    for lane in range(LANES):
        m, c = work[L.MASS * LANES + lane], load3(work, L.FIRST, lane)
        (xx, xy, xz), (yy, yz, zz) = load6(work, L.SECOND, lane)
        (a0, a1, a2), (a3, a4, a5) = load6(work, L.INERTIA, lane)
        (b0, b1, b2), (b3, b4, b5) = load6(work, L.INERTIA + 6, lane)
        b6, b7, b8 = load3(work, L.INERTIA + 12, lane)
        (m0, m1, m2), (m3, m4, m5) = load6(work, L.INERTIA + 15, lane)
        inertia = (
            (a0 + yy + zz, a1 - xy, a2 - xz, a3 + xx + zz, a4 - yz, a5 + xx + yy),
            (b0, b1 - c[2], b2 + c[1], b3 + c[2], b4, b5 - c[0], b6 - c[1], b7 + c[0], b8),
            (m0 + m, m1, m2, m3 + m, m4, m5 + m),
        )
        n, f = load6(work, L.BIAS, lane)
        wd, a = solve_symmetric6(inertia, scale(real(-1.0), n), scale(real(-1.0), f))
        store3(work, L.ACCELERATION, lane, wd)
        store3(work, L.ACCELERATION + 3, lane, a)


@inline
def integrate_base(work, world, varied):
    """Step the base, velocity first: semi-implicit Euler."""
    dt, gravity = world[C.TIMESTEP], world[C.GRAVITY]
    for lane in range(LANES):
        r = load_rotation(work, lane)
        a = rotate(r, load3(work, L.ACCELERATION + 3, lane))
        g = vary(varied, work, L.VARIED_BASE + L.V_GRAVITY, lane, gravity)
        v = add(load3(work, L.VELOCITY, lane), (dt * a[0], dt * a[1], dt * (a[2] - g)))
        spin = add(load3(work, L.SPIN, lane), scale(dt, load3(work, L.ACCELERATION, lane)))
        i = L.QUATERNION * LANES + lane
        q = quaternion_step((work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]), spin, dt)
        store3(work, L.VELOCITY, lane, v)
        store3(work, L.SPIN, lane, spin)
        store3(work, L.POSITION, lane, add(load3(work, L.POSITION, lane), scale(dt, v)))
        work[i] = q[0]
        work[i + LANES] = q[1]
        work[i + 2 * LANES] = q[2]
        work[i + 3 * LANES] = q[3]


@inline
def recentre(work, lane, axis):
    """Move the origin of a robot that left its cell, so that float32 stays precise; return by how much [m]."""
    p = work[(L.POSITION + axis) * LANES + lane]
    shift = real(L.CELL) * np.floor(p * real(1.0 / L.CELL) + real(0.5))
    work[(L.POSITION + axis) * LANES + lane] = p - shift
    work[(L.ORIGIN + axis) * LANES + lane] += shift
    return shift
