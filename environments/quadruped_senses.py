"""What the quadruped's task measures, for rewards and ends of episodes, and what the policy sees of it."""

import numpy as np

from environments.quadruped_rows import (
    ACTION,
    ACTION_SUMS,
    AIR_TIME,
    COM,
    COMMAND,
    CONTACT_THRESHOLD,
    DRAW_NOISE,
    FEET,
    FIRST,
    FOOT_HEIGHT,
    FOOT_SUMS,
    GOAL,
    GOAL_REACH,
    GROUND,
    HEADING_ERROR,
    HEIGHT_SCALE,
    LAST_ACTION,
    LOWEST,
    NEXT_PUSH,
    NOISE_BIAS,
    NOISE_GRAVITY,
    NOISE_JOINT,
    NOISE_SPEED,
    NOISE_SPIN,
    NUM_OBS,
    NUM_PRIVILEGED,
    OBS_CONTACT,
    OBS_GOAL,
    OBS_GRAVITY,
    OBS_JOINT,
    OBS_SPEED,
    OBS_SPIN,
    OLDER_ACTION,
    ON_GROUND,
    OUT,
    PER_WEIGHT,
    PRIV_ACTION,
    PRIV_AIR_TIME,
    PRIV_FOOT_HEIGHT,
    PRIV_FORCE,
    PRIV_FRICTION,
    PRIV_HEIGHT,
    PRIV_KICK,
    PRIV_PUSH,
    PRIV_PUSH_IN,
    PRIV_TRUNK_MASS,
    PRIV_VELOCITY,
    PUSH_IN,
    PUSH_LEVEL,
    SENSE_COMMAND,
    SENSE_GOAL,
    SENSE_HEADING,
    SPEED_SCALE,
    SPIN_SCALE,
    SUMS,
)
from environments.rewards import knee as knee_term
from physics import constants as C
from physics import layout as L
from physics.actuator import motor_torque, own_gains
from physics.base import attitude, load_rotation, point_ground
from physics.contact import per_metre, surface, upright
from physics.jit import LANES, inline, real
from physics.layout import load3, store3, vary
from physics.leg import constant3, foot_in_hip, geometry, link, lowered, pose
from physics.random import errors3, robot_key
from physics.simulation_step import leg_ground
from physics.spatial import add, cross, dot, rotate, scale, unrotate, x_rotate, x_unrotate


@inline
def measure(task, work, extra, model):
    """Find the centre of mass, the feet, the ground and the sums over joints that rewards and observations need."""
    world, base, legs, terrain, varied = model.world, model.base, model.legs, model.terrain, model.varied_blocks
    gains, cells = (world[C.KP], world[C.KD]), per_metre(terrain)
    mass, moment, gravity = base[C.BASE_MASS], constant3(base, C.BASE_FIRST), world[C.GRAVITY]
    zero = real(0.0)
    one = real(1.0)
    for lane in range(LANES):
        r = attitude(work, lane)
        store3(work, L.VELOCITY_B, lane, unrotate(r, load3(work, L.VELOCITY, lane)))
        extra[FEET * LANES + lane] = zero
        extra[(FEET + 1) * LANES + lane] = zero
        extra[LOWEST * LANES + lane] = real(1e3)
        for k in range(6):  # SUMS and FOOT_SUMS
            extra[(SUMS + k) * LANES + lane] = zero
        store3(extra, FIRST, lane, own3(varied, work, lane, moment))
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        c = legs[leg]
        hip_B, shape = geometry(c)
        (hip_y, hip_z), _ = link(c, C.HIP_LINK)
        (thigh_x, thigh_z), _ = link(c, C.THIGH_LINK)
        (calf_x, calf_z), _ = link(c, C.CALF_LINK)
        radius, limit, home = c[C.FOOT_RADIUS], constant3(c, C.TORQUE_LIMIT), constant3(c, C.HOME)
        low, high = constant3(c, C.LOW), constant3(c, C.HIGH)
        leg_ground(work, rows, c, terrain, None)
        for lane in range(LANES):
            q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
            ((s1, c1), (s2, c2), (s3, c3)), knee, foot = pose(q, shape)
            # the trunk carries all mass, links only moments: physics/constants.py
            first = c2 * thigh_x + s2 * thigh_z + c3 * calf_x + s3 * calf_z, hip_y, hip_z + c2 * thigh_z - s2 * thigh_x + c3 * calf_z - s3 * calf_x
            first = scale(vary(varied, work, L.VARIED_BASE + L.V_LINK_MASS, lane, real(1.0)), x_rotate(s1, c1, first))
            store3(extra, FIRST, lane, add(load3(extra, FIRST, lane), first))
            centre = foot_in_hip(shape, knee, foot)
            foot_B = add(hip_B, x_rotate(s1, c1, centre))
            gap, normal_B = surface(terrain, cells, work, L.PATCH, lane, foot_B)
            at = rotate(load_rotation(work, lane), foot_B)
            extra[FEET * LANES + lane] += real(0.25) * at[0]
            extra[(FEET + 1) * LANES + lane] += real(0.25) * at[1]
            height = upright(terrain, work, lane, gap - radius, normal_B)
            shift_in(extra, FOOT_HEIGHT, lane, height)
            extra[LOWEST * LANES + lane] = min(height, extra[LOWEST * LANES + lane])
            t = asked_torques(varied, work, rows, lane, q, qd, gains, limit)
            e = add(q, scale(real(-1.0), home))
            force = load3(rows, L.FORCE, lane)
            extra[SUMS * LANES + lane] += dot(t, t)
            extra[(SUMS + 1) * LANES + lane] += dot(qd, qd)
            extra[(SUMS + 2) * LANES + lane] += dot(e, e)
            extra[(SUMS + 3) * LANES + lane] += knee_term(q, low, high)
            touches = one if dot(force, force) > real(CONTACT_THRESHOLD**2) else zero
            shift_in(extra, ON_GROUND, lane, touches)
            # how the foot's lowest point moves over the ground
            up = x_unrotate(s1, c1, load3(work, L.ROTATION + 6, lane))
            point, arm = lowered(centre, radius, up), lowered((foot[0], shape[3], foot[1]), radius, up)
            spin = load3(work, L.SPIN, lane)
            v = x_unrotate(s1, c1, add(load3(work, L.VELOCITY_B, lane), cross(spin, hip_B)))
            v = add(add(v, cross(x_unrotate(s1, c1, spin), point)), swing(qd, point, arm, shape[0]))
            rising = dot(v, up)
            extra[FOOT_SUMS * LANES + lane] += real(0.25) * touches
            extra[(FOOT_SUMS + 1) * LANES + lane] += touches * max(dot(v, v) - rising * rising, zero)
    ground(work, extra, terrain)
    for lane in range(LANES):
        m = vary(varied, work, L.VARIED_BASE + L.V_MASS, lane, mass)
        extra[PER_WEIGHT * LANES + lane] = one / max(m * vary(varied, work, L.VARIED_BASE + L.V_GRAVITY, lane, gravity), one)
        com = rotate(load_rotation(work, lane), scale(real(1.0) / m, load3(extra, FIRST, lane)))
        x, y, z = add(load3(work, L.POSITION, lane), com)
        store3(task, COM, lane, (x, y, z - extra[GROUND * LANES + lane]))
        rate, bend = zero, zero
        for k in range(12):
            last = task[(LAST_ACTION + k) * LANES + lane]
            change = task[(ACTION + k) * LANES + lane] - last
            bent = change - (last - task[(OLDER_ACTION + k) * LANES + lane])
            rate += change * change
            bend += bent * bent
        extra[ACTION_SUMS * LANES + lane] = rate
        extra[(ACTION_SUMS + 1) * LANES + lane] = bend


@inline
def shift_in(extra, row, lane, value):
    """Append a leg's value to four rows, which after all legs hold theirs in order: rows that depend on the leg would keep its loop from vectorising."""
    i = row * LANES + lane
    a, b, c = extra[i + LANES], extra[i + 2 * LANES], extra[i + 3 * LANES]
    extra[i] = a
    extra[i + LANES] = b
    extra[i + 2 * LANES] = c
    extra[i + 3 * LANES] = value


@inline
def swing(qd, point, arm, rise):
    """Return how fast a point of the calf moves with the joints (3), hip frame [m/s]; point: from the hip's, arm: from the knee's origin."""
    return qd[1] * (point[2] - rise) + qd[2] * arm[2], -qd[0] * point[2], qd[0] * point[1] - qd[1] * point[0] - qd[2] * arm[0]


@inline
def own3(varied, work, lane, moment):
    """Return the first moment that the trunk carries (3), a robot's own where robots differ."""
    if varied is None:
        return moment
    return load3(work, L.VARIED_BASE + L.V_FIRST, lane)


@inline
def asked_torques(varied, work, rows, lane, q, qd, gains, limit):
    """Return the torques (3) that a leg's motors are asked for, within their limits [N m]."""
    kp, kd = own_gains(varied, work, lane, gains[0], gains[1])
    target, feedforward = load3(rows, L.TARGET, lane), load3(rows, L.TORQUE, lane)
    return (
        asked_torque(varied, rows, lane, 0, target[0], feedforward[0], q[0], qd[0], kp, kd, limit[0]),
        asked_torque(varied, rows, lane, 1, target[1], feedforward[1], q[1], qd[1], kp, kd, limit[1]),
        asked_torque(varied, rows, lane, 2, target[2], feedforward[2], q[2], qd[2], kp, kd, limit[2]),
    )


@inline
def asked_torque(varied, rows, lane, joint, target, feedforward, q, qd, kp, kd, limit):
    """Return the torque that a motor is asked for, within its limit [N m]."""
    limit = vary(varied, rows, L.VARIED_LEG + L.V_TORQUE_LIMIT + joint, lane, limit)
    q = q + vary(varied, rows, L.VARIED_LEG + L.V_OFFSET + joint, lane, real(0.0))
    return motor_torque(target, feedforward, q, qd, kp, kd, -limit, limit)


@inline
def ground(work, extra, terrain):
    """Set GROUND to the height of the ground below the base."""
    cells = per_metre(terrain)
    zero = real(0.0)
    origin = (zero, zero, zero)
    point_ground(work, terrain, cells, origin)
    for lane in range(LANES):
        if terrain is None:
            extra[GROUND * LANES + lane] = zero
        else:
            i = L.PATCH * LANES + lane
            h00, h10, h01, h11 = work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]
            low, high = h00 + work[i + 4 * LANES] * (h10 - h00), h01 + work[i + 4 * LANES] * (h11 - h01)
            extra[GROUND * LANES + lane] = low + work[i + 5 * LANES] * (high - low)


@inline
def noisy3(noise, kind, key, draw, v):
    """Return a measured vector (3), with noise where there is any."""
    if noise is None:
        return v
    return add(v, errors3(key, draw, noise[kind]))


@inline
def biased3(noise, task, row, lane, v):
    """Return a measured vector (3), with its bias where there is any."""
    if noise is None:
        return v
    return add(v, load3(task, NOISE_BIAS + row, lane))


@inline
def offset3(varied, rows, lane, q):
    """Return the measured joint angles of a leg (3), with their errors where robots differ."""
    if varied is None:
        return q
    return add(q, load3(rows, L.VARIED_LEG + L.V_OFFSET, lane))


@inline
def to_heading(work, lane, x, y):
    """Return a horizontal vector in the heading frame, whose x axis is the base's, projected on the ground."""
    ahead_x, ahead_y = work[L.ROTATION * LANES + lane], work[(L.ROTATION + 3) * LANES + lane]
    h = real(1.0) / np.sqrt(ahead_x * ahead_x + ahead_y * ahead_y + real(1e-12))
    return h * (ahead_x * x + ahead_y * y), h * (ahead_x * y - ahead_y * x)


@inline
def from_heading(work, lane, x, y):
    """Return a horizontal vector, given in the heading frame, in the world frame."""
    ahead_x, ahead_y = work[L.ROTATION * LANES + lane], work[(L.ROTATION + 3) * LANES + lane]
    h = real(1.0) / np.sqrt(ahead_x * ahead_x + ahead_y * ahead_y + real(1e-12))
    return h * (ahead_x * x - ahead_y * y), h * (ahead_y * x + ahead_x * y)


@inline
def differences(varied, work, lane, model_numbers):
    """Return foot friction and trunk mass of a robot, both times the model's."""
    kinetic, trunk, whole = model_numbers
    if varied is None:
        return real(1.0), real(1.0)
    i = L.VARIED_BASE
    mass, links = work[(i + L.V_MASS) * LANES + lane], work[(i + L.V_LINK_MASS) * LANES + lane]
    return work[(i + L.V_KINETIC) * LANES + lane] / max(kinetic, real(1e-6)), (mass - links * (whole - trunk)) / trunk


@inline
def observe(task, work, extra, constants, model, noise, seed, clock, number):
    """Set the rows of observation and privileged observation; number: of the block's first robot."""
    reach, home_height, varied = constants[GOAL_REACH], model.base[C.HOME_HEIGHT], model.varied_blocks
    across, upward = constants[SENSE_GOAL], constants[SENSE_GOAL + 1]
    pace, turning, facing = constants[SENSE_COMMAND], constants[SENSE_COMMAND + 1], constants[SENSE_HEADING]
    model_numbers = model.world[C.KINETIC], model.base[C.TRUNK], model.base[C.BASE_MASS]
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        home = constant3(model.legs[leg], C.HOME)
        draw = DRAW_NOISE + 2 * leg
        joint = extra[(OBS_JOINT + 3 * leg) * LANES : (OBS_JOINT + 3 * leg + 3) * LANES]
        speed = extra[(OBS_SPEED + 3 * leg) * LANES : (OBS_SPEED + 3 * leg + 3) * LANES]
        contact = extra[(OBS_CONTACT + leg) * LANES : (OBS_CONTACT + leg + 1) * LANES]
        for lane in range(LANES):
            key = robot_key(seed, clock, number + lane)
            q, qd = offset3(varied, rows, lane, load3(rows, L.JOINT, lane)), load3(rows, L.JOINT_SPEED, lane)
            store3(joint, 0, lane, add(noisy3(noise, NOISE_JOINT, key, draw, q), scale(real(-1.0), home)))
            store3(speed, 0, lane, scale(real(SPEED_SCALE), noisy3(noise, NOISE_SPEED, key, draw + 1, qd)))
            force = load3(rows, L.FORCE, lane)
            contact[lane] = real(1.0) if dot(force, force) > real(CONTACT_THRESHOLD**2) else real(0.0)
    for lane in range(LANES):
        r = load_rotation(work, lane)
        key = robot_key(seed, clock, number + lane)
        down = biased3(noise, task, 3, lane, (-r[6], -r[7], -r[8]))
        spin = biased3(noise, task, 0, lane, load3(work, L.SPIN, lane))
        store3(extra, OBS_GRAVITY, lane, noisy3(noise, NOISE_GRAVITY, key, DRAW_NOISE + 8, down))
        store3(extra, OBS_SPIN, lane, scale(real(SPIN_SCALE), noisy3(noise, NOISE_SPIN, key, DRAW_NOISE + 9, spin)))
        offset = add(load3(task, GOAL, lane), scale(real(-1.0), load3(task, COM, lane)))
        height = work[(L.POSITION + 2) * LANES + lane] - extra[GROUND * LANES + lane]
        ahead, left = to_heading(work, lane, offset[0], offset[1])
        shrink = min(real(1.0), reach / np.sqrt(ahead * ahead + left * left + real(1e-12)))
        # of goal and command, the task scales one by 0
        asked = load3(task, COMMAND, lane)
        goal = across * (shrink * ahead), across * (shrink * left), upward * offset[2] + facing * task[HEADING_ERROR * LANES + lane]
        store3(extra, OBS_GOAL, lane, add(goal, (pace * asked[0], pace * asked[1], turning * asked[2])))
        store3(extra, NUM_OBS + PRIV_VELOCITY, lane, load3(work, L.VELOCITY_B, lane))
        extra[(NUM_OBS + PRIV_HEIGHT) * LANES + lane] = real(HEIGHT_SCALE) * (height - home_height)
        friction, trunk_mass = differences(varied, work, lane, model_numbers)
        extra[(NUM_OBS + PRIV_FRICTION) * LANES + lane] = friction
        extra[(NUM_OBS + PRIV_TRUNK_MASS) * LANES + lane] = trunk_mass
        for k in range(12):
            extra[(NUM_OBS + PRIV_ACTION + k) * LANES + lane] = task[(ACTION + k) * LANES + lane]
        for leg in range(4):
            force = work[L.leg_row(leg, L.FORCE + 2) * LANES + lane]
            extra[(NUM_OBS + PRIV_FOOT_HEIGHT + leg) * LANES + lane] = real(HEIGHT_SCALE) * extra[(FOOT_HEIGHT + leg) * LANES + lane]
            extra[(NUM_OBS + PRIV_AIR_TIME + leg) * LANES + lane] = task[(AIR_TIME + leg) * LANES + lane]
            extra[(NUM_OBS + PRIV_FORCE + leg) * LANES + lane] = extra[PER_WEIGHT * LANES + lane] * force
        level = constants[PUSH_LEVEL]
        store3(extra, NUM_OBS + PRIV_PUSH, lane, unrotate(r, scale(level, load3(task, NEXT_PUSH, lane))))
        store3(extra, NUM_OBS + PRIV_KICK, lane, scale(level, load3(task, NEXT_PUSH + 3, lane)))
        extra[(NUM_OBS + PRIV_PUSH_IN) * LANES + lane] = task[PUSH_IN * LANES + lane]


@inline
def emit(extra, robot, lane, obs, privileged):
    """Write a robot's observations out as a row; what is not finite becomes 0."""
    for k in range(NUM_OBS):
        x = extra[(OUT + k) * LANES + lane]
        obs[robot, k] = x if abs(x) < real(1e3) else real(0.0)
    for k in range(NUM_PRIVILEGED):
        x = extra[(OUT + NUM_OBS + k) * LANES + lane]
        privileged[robot, k] = x if abs(x) < real(1e3) else real(0.0)
