"""What the quadruped's task measures, for rewards and ends of episodes, and what the policy sees of it."""

import numpy as np

from environments.quadruped_rows import (
    ACTION,
    COM,
    CONTACT_THRESHOLD,
    DRAW_NOISE,
    FEET,
    FIRST,
    GOAL,
    GOAL_REACH,
    GOAL_SCALE,
    GROUND,
    LAST_ACTION,
    LOWEST,
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
    OUT,
    SPEED_SCALE,
    SPIN_SCALE,
    SUMS,
)
from physics import constants as C
from physics import layout as L
from physics.actuator import motor_torque, own_gains
from physics.base import attitude, load_rotation, point_ground
from physics.contact import per_metre, surface, upright
from physics.jit import LANES, inline, real
from physics.layout import load3, store3, vary
from physics.leg import constant3, foot_in_hip, geometry, link, pose
from physics.random import errors3, robot_key
from physics.simulation_step import leg_ground
from physics.spatial import add, dot, rotate, scale, unrotate, x_rotate


@inline
def measure(task, work, extra, model):
    """Find the centre of mass, the feet, the ground and the sums over joints that rewards and observations need."""
    world, base, legs, terrain, varied = model.world, model.base, model.legs, model.terrain, model.varied_blocks
    gains, cells = (world[C.KP], world[C.KD]), per_metre(terrain)
    mass, moment = base[C.BASE_MASS], constant3(base, C.BASE_FIRST)
    zero = real(0.0)
    for lane in range(LANES):
        r = attitude(work, lane)
        store3(work, L.VELOCITY_B, lane, unrotate(r, load3(work, L.VELOCITY, lane)))
        extra[FEET * LANES + lane] = zero
        extra[(FEET + 1) * LANES + lane] = zero
        extra[LOWEST * LANES + lane] = real(1e3)
        for k in range(4):
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
        leg_ground(work, rows, c, terrain, None)
        for lane in range(LANES):
            q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
            ((s1, c1), (s2, c2), (s3, c3)), knee, foot = pose(q, shape)
            # the trunk carries all mass, links only moments: physics/constants.py
            first = c2 * thigh_x + s2 * thigh_z + c3 * calf_x + s3 * calf_z, hip_y, hip_z + c2 * thigh_z - s2 * thigh_x + c3 * calf_z - s3 * calf_x
            first = scale(vary(varied, work, L.VARIED_BASE + L.V_LINK_MASS, lane, real(1.0)), x_rotate(s1, c1, first))
            store3(extra, FIRST, lane, add(load3(extra, FIRST, lane), first))
            foot_B = add(hip_B, x_rotate(s1, c1, foot_in_hip(shape, knee, foot)))
            gap, normal_B = surface(terrain, cells, work, L.PATCH, lane, foot_B)
            foot = rotate(load_rotation(work, lane), foot_B)
            extra[FEET * LANES + lane] += real(0.25) * foot[0]
            extra[(FEET + 1) * LANES + lane] += real(0.25) * foot[1]
            extra[LOWEST * LANES + lane] = min(upright(terrain, work, lane, gap - radius, normal_B), extra[LOWEST * LANES + lane])
            t = asked_torques(varied, work, rows, lane, q, qd, gains, limit)
            e = add(q, scale(real(-1.0), home))
            force = load3(rows, L.FORCE, lane)
            extra[SUMS * LANES + lane] += dot(t, t)
            extra[(SUMS + 1) * LANES + lane] += dot(qd, qd)
            extra[(SUMS + 2) * LANES + lane] += dot(e, e)
            extra[(SUMS + 3) * LANES + lane] += real(0.25) if dot(force, force) > real(CONTACT_THRESHOLD**2) else zero
    ground(work, extra, terrain)
    for lane in range(LANES):
        m = vary(varied, work, L.VARIED_BASE + L.V_MASS, lane, mass)
        com = rotate(load_rotation(work, lane), scale(real(1.0) / m, load3(extra, FIRST, lane)))
        x, y, z = add(load3(work, L.POSITION, lane), com)
        store3(task, COM, lane, (x, y, z - extra[GROUND * LANES + lane]))
        rate = zero
        for k in range(12):
            change = task[(ACTION + k) * LANES + lane] - task[(LAST_ACTION + k) * LANES + lane]
            rate += change * change
        extra[(SUMS + 4) * LANES + lane] = rate


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
def observe(task, work, extra, constants, model, noise, seed, clock, first):
    """Set the rows of observation and privileged observation."""
    reach, home_height, varied = constants[GOAL_REACH], model.base[C.HOME_HEIGHT], model.varied_blocks
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        home = constant3(model.legs[leg], C.HOME)
        draw = DRAW_NOISE + 2 * leg
        joint = extra[(OBS_JOINT + 3 * leg) * LANES : (OBS_JOINT + 3 * leg + 3) * LANES]
        speed = extra[(OBS_SPEED + 3 * leg) * LANES : (OBS_SPEED + 3 * leg + 3) * LANES]
        contact = extra[(OBS_CONTACT + leg) * LANES : (OBS_CONTACT + leg + 1) * LANES]
        for lane in range(LANES):
            key = robot_key(seed, clock, first + lane)
            q, qd = offset3(varied, rows, lane, load3(rows, L.JOINT, lane)), load3(rows, L.JOINT_SPEED, lane)
            store3(joint, 0, lane, add(noisy3(noise, NOISE_JOINT, key, draw, q), scale(real(-1.0), home)))
            store3(speed, 0, lane, scale(real(SPEED_SCALE), noisy3(noise, NOISE_SPEED, key, draw + 1, qd)))
            force = load3(rows, L.FORCE, lane)
            contact[lane] = real(1.0) if dot(force, force) > real(CONTACT_THRESHOLD**2) else real(0.0)
    for lane in range(LANES):
        r = load_rotation(work, lane)
        key = robot_key(seed, clock, first + lane)
        down = biased3(noise, task, 3, lane, (-r[6], -r[7], -r[8]))
        spin = biased3(noise, task, 0, lane, load3(work, L.SPIN, lane))
        store3(extra, OBS_GRAVITY, lane, noisy3(noise, NOISE_GRAVITY, key, DRAW_NOISE + 8, down))
        store3(extra, OBS_SPIN, lane, scale(real(SPIN_SCALE), noisy3(noise, NOISE_SPIN, key, DRAW_NOISE + 9, spin)))
        offset = add(load3(task, GOAL, lane), scale(real(-1.0), load3(task, COM, lane)))
        height = work[(L.POSITION + 2) * LANES + lane] - extra[GROUND * LANES + lane]
        # heading frame: the horizontal direction of the base's x axis
        h = real(1.0) / np.sqrt(r[0] * r[0] + r[3] * r[3] + real(1e-12))
        ahead, left = h * (r[0] * offset[0] + r[3] * offset[1]), h * (r[0] * offset[1] - r[3] * offset[0])
        shrink = min(real(1.0), reach / np.sqrt(ahead * ahead + left * left + real(1e-12)))
        store3(extra, OBS_GOAL, lane, scale(real(GOAL_SCALE), (shrink * ahead, shrink * left, offset[2])))
        store3(extra, NUM_OBS, lane, load3(work, L.VELOCITY_B, lane))
        extra[(NUM_OBS + 3) * LANES + lane] = real(10.0) * (height - home_height)
        for k in range(12):
            extra[(NUM_OBS + 4 + k) * LANES + lane] = task[(ACTION + k) * LANES + lane]


@inline
def emit(extra, robot, lane, obs, privileged):
    """Write a robot's observations out as a row; what is not finite becomes 0."""
    for k in range(NUM_OBS):
        x = extra[(OUT + k) * LANES + lane]
        obs[robot, k] = x if abs(x) < real(1e3) else real(0.0)
    for k in range(NUM_PRIVILEGED):
        x = extra[(OUT + NUM_OBS + k) * LANES + lane]
        privileged[robot, k] = x if abs(x) < real(1e3) else real(0.0)
