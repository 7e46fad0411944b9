"""What happens to a robot whose state stops being finite: it is put back at home, and counted."""

import numpy as np

from physics import constants as C
from physics import layout as L
from physics.base import attitude
from physics.contact import find_patch, look_up, per_metre, surface, upright
from physics.jit import LANES, inline, real
from physics.layout import choose3, load3
from physics.leg import constant3, foot_in_hip, geometry, pose
from physics.spatial import add, dot, x_rotate

LARGEST = 1e6  # of any number of a state [m], [m/s], [rad/s]; float32 cannot square much more than its square


@inline
def mend(work, model):
    """Put a block's robots whose state is not finite, or beyond LARGEST, back at home, standing still, and count it."""
    marks = work[L.MASS * LANES : (L.MASS + 1) * LANES]
    if find_broken(work, marks) > 0:
        for lane in range(LANES):
            work[L.BROKEN * LANES + lane] += marks[lane]
        put_home(work, model.base, model.legs, model.motor_blocks, marks)
        put_on_ground(work, model.terrain, model.legs, marks)


@inline
def find_broken(work, marks):
    """Set marks (LANES) to 1 for the robots whose state is not finite, else 0, and return how many they are."""
    for lane in range(LANES):
        i = L.QUATERNION * LANES + lane
        p, v, spin = load3(work, L.POSITION, lane), load3(work, L.VELOCITY, lane), load3(work, L.SPIN, lane)
        turn = work[i] + work[i + LANES] + work[i + 2 * LANES] + work[i + 3 * LANES]
        origin = work[L.ORIGIN * LANES + lane] + work[(L.ORIGIN + 1) * LANES + lane]
        marks[lane] = dot(p, p) + dot(v, v) + dot(spin, spin) + turn * turn + origin - origin
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        for lane in range(LANES):
            q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
            marks[lane] += dot(q, q) + dot(qd, qd)
    broken = real(0.0)
    for lane in range(LANES):
        marks[lane] = real(0.0) if marks[lane] < real(LARGEST * LARGEST) else real(1.0)
        broken += marks[lane]
    return broken


@inline
def put_home(work, base, legs, motor_blocks, marks):
    """Put robots at home, at rest, in the middle of their cell, where marks (LANES) are above 0."""
    zero = real(0.0)
    one = real(1.0)
    none = (zero, zero, zero)
    height = base[C.HOME_HEIGHT]
    for lane in range(LANES):
        broken = marks[lane] > zero
        choose3(work, L.POSITION, lane, broken, (zero, zero, height))
        i = L.QUATERNION * LANES + lane
        work[i] = one if broken else work[i]
        choose3(work, L.QUATERNION + 1, lane, broken, none)
        choose3(work, L.VELOCITY, lane, broken, none)
        choose3(work, L.SPIN, lane, broken, none)
        for axis in range(2):
            j = (L.ORIGIN + axis) * LANES + lane
            known = abs(work[j]) < real(LARGEST)
            work[j] = zero if broken & (not known) else work[j]
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        home = constant3(legs[leg], C.HOME)
        for lane in range(LANES):
            broken = marks[lane] > zero
            choose3(rows, L.JOINT, lane, broken, home)
            choose3(rows, L.JOINT_SPEED, lane, broken, none)
            choose3(rows, L.FORCE, lane, broken, none)
            if motor_blocks is not None:
                choose3(rows, L.MOTORS_LEG + L.MOTOR, lane, broken, none)
                choose3(rows, L.MOTORS_LEG + L.LAST_TORQUE, lane, broken, none)
                choose3(rows, L.MOTORS_LEG + L.LAST_TARGET, lane, broken, home)
    if motor_blocks is not None:
        for lane in range(LANES):
            i, j = (L.MOTORS_BASE + L.ENERGY) * LANES + lane, (L.MOTORS_BASE + L.FATIGUE) * LANES + lane
            work[i] = zero if marks[lane] > zero else work[i]
            work[j] = zero if marks[lane] > zero else work[j]


@inline
def put_on_ground(work, terrain, legs, marks):
    """Raise robots at home until no foot is deeper in the terrain than it would be in the flat floor.

    marks: (LANES) 1 for those robots.
    """
    if terrain is not None:
        heights, (whole, _), _ = terrain
        cells = per_metre(terrain)
        rise = work[L.FIRST * LANES : (L.FIRST + 1) * LANES]
        for lane in range(LANES):
            attitude(work, lane)
            rise[lane] = real(-1e6)
        for leg in range(4):
            hip_B, shape = geometry(legs[leg])
            radius = legs[leg][C.FOOT_RADIUS]
            ((s1, c1), _, _), knee, foot = pose(constant3(legs[leg], C.HOME), shape)
            foot_B = add(hip_B, x_rotate(s1, c1, foot_in_hip(shape, knee, foot)))
            for lane in range(LANES):
                find_patch(whole, cells, work, L.PATCH, lane, foot_B)
            look_up(heights, np.uint32(whole[0]), work, L.PATCH)
            for lane in range(LANES):
                gap, normal_B = surface(terrain, cells, work, L.PATCH, lane, foot_B)
                above = work[(L.POSITION + 2) * LANES + lane] + foot_B[2] - radius
                rise[lane] = max(rise[lane], above - upright(terrain, work, lane, gap - radius, normal_B))
        for lane in range(LANES):
            i = (L.POSITION + 2) * LANES + lane
            work[i] = work[i] + rise[lane] if marks[lane] > real(0.0) else work[i]
