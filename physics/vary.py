"""What robots differ in: drawn for each of them, as rows that the kernel reads instead of constants.

They are drawn from the ranges of config.VaryCfg.
"""

import numpy as np

from config import VaryCfg
from physics import constants as C
from physics import layout as L
from physics.jit import LANES, call, inline, kernel, real, stage
from physics.layout import choose3
from physics.leg import constant3
from physics.random import robot_key, uniform

# Ranges: pack()
(
    FRICTION,
    RESTITUTION,
    STIFFNESS,
    TRUNK_MASS,
    TRUNK_SHIFT,
    LINK_MASS,
    STRENGTH,
    KP,
    KD,
    JOINT_OFFSET,
    DELAY,
    GRAVITY,
    GRIP,
) = range(0, 26, 2)  # lowest, highest
JOINT_FRICTION = 26
JOINT_DAMPING = 28

# Draws of a robot's key
DRAW_BASE = 256
DRAW_LEG = 272
DRAW_JOINT = 300


def pack(cfg: VaryCfg) -> np.ndarray:
    """Return the ranges, lowest and highest of each, (30)."""
    ranges = [
        *cfg.friction, *cfg.restitution, *cfg.stiffness, *cfg.trunk_mass, -cfg.trunk_shift, cfg.trunk_shift,
        *cfg.link_mass, *cfg.strength, *cfg.kp, *cfg.kd, -cfg.joint_offset, cfg.joint_offset, *cfg.delay, *cfg.gravity,
        *cfg.grip_time, *cfg.joint_friction, *cfg.joint_damping,
    ]  # fmt: skip
    return np.array(ranges, dtype=real)


@inline
def draw_base(work, model, ranges, seed, clock, first_robot, marks):
    """Draw what the whole robot has, where marks (LANES) are above 0; first_robot: the number of the block's first."""
    world, base = model.world, model.base
    gravity, stiffness, restitution = world[C.GRAVITY], world[C.STIFFNESS], world[C.RESTITUTION]
    kinetic, static, delay, grip = world[C.KINETIC], world[C.STATIC], motor_delay(model.motors), world[C.GRIP_TIME]
    whole_mass, whole_first = base[C.BASE_MASS], constant3(base, C.BASE_FIRST)
    mass, (fx, fy, fz) = base[C.TRUNK], constant3(base, C.TRUNK + 1)
    whole_second = constant3(base, C.BASE_SECOND) + constant3(base, C.BASE_SECOND + 3)
    xx, xy, xz, yy, yz, zz = constant3(base, C.TRUNK + 4) + constant3(base, C.TRUNK + 7)
    rows = work[L.VARIED_BASE * LANES : (L.VARIED_BASE + L.VARIED_BASE_ROWS) * LANES]
    for lane in range(LANES):
        key, now = robot_key(seed, clock, first_robot + lane), marks[lane] > real(0.0)
        friction = uniform(key, DRAW_BASE, ranges[FRICTION], ranges[FRICTION + 1])
        choose(rows, L.V_KINETIC, lane, now, kinetic * friction)
        choose(rows, L.V_STATIC, lane, now, static * friction)
        choose(
            rows,
            L.V_RESTITUTION,
            lane,
            now,
            restitution * uniform(key, DRAW_BASE + 1, ranges[RESTITUTION], ranges[RESTITUTION + 1]),
        )
        choose(
            rows,
            L.V_STIFFNESS,
            lane,
            now,
            stiffness * uniform(key, DRAW_BASE + 2, ranges[STIFFNESS], ranges[STIFFNESS + 1]),
        )
        choose(rows, L.V_KP, lane, now, uniform(key, DRAW_BASE + 3, ranges[KP], ranges[KP + 1]))
        choose(rows, L.V_KD, lane, now, uniform(key, DRAW_BASE + 4, ranges[KD], ranges[KD + 1]))
        choose(rows, L.V_DELAY, lane, now, delay + uniform(key, DRAW_BASE + 5, ranges[DELAY], ranges[DELAY + 1]))
        choose(
            rows, L.V_GRAVITY, lane, now, gravity * uniform(key, DRAW_BASE + 6, ranges[GRAVITY], ranges[GRAVITY + 1])
        )
        choose(rows, L.V_GRIP_TIME, lane, now, grip + uniform(key, DRAW_BASE + 12, ranges[GRIP], ranges[GRIP + 1]))
        links = uniform(key, DRAW_BASE + 7, ranges[LINK_MASS], ranges[LINK_MASS + 1])
        choose(rows, L.V_LINK_MASS, lane, now, links)
        # the trunk's moments about a shifted centre, scaled, and what the legs hand it
        trunk = uniform(key, DRAW_BASE + 8, ranges[TRUNK_MASS], ranges[TRUNK_MASS + 1])
        x = uniform(key, DRAW_BASE + 9, ranges[TRUNK_SHIFT], ranges[TRUNK_SHIFT + 1])
        y = uniform(key, DRAW_BASE + 10, ranges[TRUNK_SHIFT], ranges[TRUNK_SHIFT + 1])
        z = uniform(key, DRAW_BASE + 11, ranges[TRUNK_SHIFT], ranges[TRUNK_SHIFT + 1])
        choose(rows, L.V_MASS, lane, now, trunk * mass + links * (whole_mass - mass))
        first = (
            trunk * (fx + mass * x) + links * (whole_first[0] - fx),
            trunk * (fy + mass * y) + links * (whole_first[1] - fy),
            trunk * (fz + mass * z) + links * (whole_first[2] - fz),
        )
        choose3(rows, L.V_FIRST, lane, now, first)
        two = real(2.0)
        second = (
            trunk * (xx + two * x * fx + mass * x * x) + links * (whole_second[0] - xx),
            trunk * (xy + x * fy + y * fx + mass * x * y) + links * (whole_second[1] - xy),
            trunk * (xz + x * fz + z * fx + mass * x * z) + links * (whole_second[2] - xz),
        )
        choose3(rows, L.V_SECOND, lane, now, second)
        second = (
            trunk * (yy + two * y * fy + mass * y * y) + links * (whole_second[3] - yy),
            trunk * (yz + y * fz + z * fy + mass * y * z) + links * (whole_second[4] - yz),
            trunk * (zz + two * z * fz + mass * z * z) + links * (whole_second[5] - zz),
        )
        choose3(rows, L.V_SECOND + 3, lane, now, second)


@inline
def choose(rows, row, lane, condition, value):
    """Set a row of a lane where a condition holds."""
    i = row * LANES + lane
    rows[i] = value if condition else rows[i]


@inline
def motor_delay(motors):
    """Return the motors' delay [s]."""
    if motors is None:
        return real(0.0)
    return motors[C.DELAY]


@inline
def draw_leg(rows, leg, index, ranges, seed, clock, first_robot, marks):
    """Draw what a leg's joints have, where marks (LANES) are above 0; index: of the leg."""
    limit, friction, damping = constant3(leg, C.TORQUE_LIMIT), constant3(leg, C.FRICTION), constant3(leg, C.DAMPING)
    own = rows[L.VARIED_LEG * LANES : (L.VARIED_LEG + L.VARIED_LEG_ROWS) * LANES]
    weak, strong, low, high = ranges[STRENGTH], ranges[STRENGTH + 1], ranges[JOINT_OFFSET], ranges[JOINT_OFFSET + 1]
    draw = DRAW_LEG + 6 * index
    for lane in range(LANES):
        key, now = robot_key(seed, clock, first_robot + lane), marks[lane] > real(0.0)
        a, b, c = (
            uniform(key, draw, weak, strong),
            uniform(key, draw + 1, weak, strong),
            uniform(key, draw + 2, weak, strong),
        )
        choose3(own, L.V_TORQUE_LIMIT, lane, now, (limit[0] * a, limit[1] * b, limit[2] * c))
        choose3(
            own,
            L.V_OFFSET,
            lane,
            now,
            (uniform(key, draw + 3, low, high), uniform(key, draw + 4, low, high), uniform(key, draw + 5, low, high)),
        )
    least_friction, most_friction = ranges[JOINT_FRICTION], ranges[JOINT_FRICTION + 1]
    least_damping, most_damping = ranges[JOINT_DAMPING], ranges[JOINT_DAMPING + 1]
    draw = DRAW_JOINT + 6 * index
    for lane in range(LANES):
        key, now = robot_key(seed, clock, first_robot + lane), marks[lane] > real(0.0)
        a, b = uniform(key, draw, least_friction, most_friction), uniform(key, draw + 1, least_friction, most_friction)
        c = uniform(key, draw + 2, least_friction, most_friction)
        choose3(own, L.V_FRICTION, lane, now, (friction[0] * a, friction[1] * b, friction[2] * c))
        a, b = uniform(key, draw + 3, least_damping, most_damping), uniform(key, draw + 4, least_damping, most_damping)
        c = uniform(key, draw + 5, least_damping, most_damping)
        choose3(own, L.V_DAMPING, lane, now, (damping[0] * a, damping[1] * b, damping[2] * c))


@stage
def draw_varied(work, model, ranges, seed, clock, first_robot, marks):
    """Draw everything that robots differ in, where marks (LANES) are above 0."""
    draw_base(work, model, ranges, seed, clock, first_robot, marks)
    for leg in range(4):
        draw_leg(L.leg_rows(work, leg), model.legs[leg], leg, ranges, seed, clock, first_robot, marks)


@kernel
def vary_step(blocks, start, stop, work, model, at_draw, ranges, seed, first_robot):
    """Draw what the robots of blocks[start:stop] differ in.

    at_draw: address of draw_varied(); ranges: pack(); seed: a whole number; first_robot: number of blocks[0]'s first.
    """
    for b in range(start, stop):
        L.varied_in(model.varied_blocks, model.joints_differ, b, work)
        marks = work[L.MASS * LANES : (L.MASS + 1) * LANES]
        for lane in range(LANES):
            marks[lane] = real(1.0)
        call(at_draw, work, model, ranges, seed, 0, first_robot + b * LANES, marks)
        L.varied_out(work, model.varied_blocks, model.joints_differ, b)
