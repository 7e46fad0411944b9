"""Measuring: what fields.MEASURED and some of KEPT say of a state, a leg at a time, for every task."""

import numpy as np

from environments.quadruped.fields import CONTACT_THRESHOLD, K, M, S
from physics import constants as C
from physics import layout as L
from physics.actuator import motor_torque, own_gains
from physics.base import attitude, load_rotation, point_ground, recentre
from physics.contact import find_patch, look_up, per_metre, surface, upright
from physics.jit import LANES, inline, real, stage
from physics.layout import load3, store3, vary
from physics.leg import constant3, foot_in_hip, geometry, link, lowered, pose
from physics.simulation_step import leg_ground
from physics.spatial import add, cross, dot, rotate, scale, unrotate, x_rotate, x_unrotate


@inline
def stay_in_cell(task, work):
    """Re-centre the world on the robot, goal included."""
    for lane in range(LANES):
        for axis in range(2):
            task[(K.goal + axis) * LANES + lane] -= recentre(work, lane, axis)


@inline
def feel_ground(task, work, dt):
    """Count how long each foot has been in the air, and mark those that touch down at this instant."""
    zero = real(0.0)
    for leg in range(4):
        leg_rows = L.leg_rows(work, leg)
        air, landed = (
            task[(K.air_time + leg) * LANES : (K.air_time + leg + 1) * LANES],
            task[(K.landed + leg) * LANES : (K.landed + leg + 1) * LANES],
        )
        for lane in range(LANES):
            force = load3(leg_rows, L.FORCE, lane)
            touches = dot(force, force) > real(CONTACT_THRESHOLD**2)
            flight = air[lane]
            landed[lane] = flight if touches else zero
            air[lane] = zero if touches else flight + dt


@inline
def check_finite(work, extra):
    """Mark the robots whose state is finite, and count those whose state is not."""
    for lane in range(LANES):
        p, v, spin = load3(work, L.POSITION, lane), load3(work, L.VELOCITY, lane), load3(work, L.SPIN, lane)
        origin = work[L.ORIGIN * LANES + lane] + work[(L.ORIGIN + 1) * LANES + lane]
        joints = extra[M.joint_speed_squared * LANES + lane] + extra[M.pose_squared * LANES + lane]
        finite = dot(p, p) + dot(v, v) + dot(spin, spin) + joints + (origin - origin) < real(1e8)
        extra[M.finite * LANES + lane] = real(1.0) if finite else real(0.0)
        work[L.BROKEN * LANES + lane] += real(0.0) if finite else real(1.0)


@stage
def measure(task, work, extra, settings, model, after_physics):
    """Find what there is to find of a state; after_physics: of one that a step led to, else of one set otherwise."""
    if after_physics:
        stay_in_cell(task, work)
        feel_ground(task, work, settings[S.ctrl_dt])
    find_feet_and_mass(task, work, extra, model)
    if after_physics:
        check_finite(work, extra)


@inline
def find_feet_and_mass(task, work, extra, model):
    """Find the centre of mass, the feet, the ground and the sums over joints that rewards and observations need."""
    world, base, legs, terrain, varied = model.world, model.base, model.legs, model.terrain, model.varied_blocks
    cells = per_metre(terrain)
    mass, moment, gravity = base[C.BASE_MASS], constant3(base, C.BASE_FIRST), world[C.GRAVITY]
    zero = real(0.0)
    one = real(1.0)
    for lane in range(LANES):
        r = attitude(work, lane)
        store3(work, L.VELOCITY_B, lane, unrotate(r, load3(work, L.VELOCITY, lane)))
        extra[M.feet * LANES + lane] = zero
        extra[(M.feet + 1) * LANES + lane] = zero
        extra[M.lowest_foot * LANES + lane] = real(1e3)
        for k in range(6):  # from torque_squared to slip_squared
            extra[(M.torque_squared + k) * LANES + lane] = zero
        store3(extra, M.first_moment, lane, own3(varied, work, lane, moment))
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        c = legs[leg]
        hip_B, shape = geometry(c)
        (hip_y, hip_z), _ = link(c, C.HIP_LINK)
        (thigh_x, thigh_z), _ = link(c, C.THIGH_LINK)
        (calf_x, calf_z), _ = link(c, C.CALF_LINK)
        radius, limit, home = c[C.FOOT_RADIUS], constant3(c, C.TORQUE_LIMIT), constant3(c, C.HOME)
        low, high = constant3(c, C.LOW), constant3(c, C.HIGH)
        gains = constant3(c, C.KP), constant3(c, C.KD)
        leg_ground(work, rows, c, terrain, None)
        for lane in range(LANES):
            q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
            ((s1, c1), (s2, c2), (s3, c3)), knee, foot = pose(q, shape)
            # the trunk carries all mass, links only moments: physics/constants.py
            first = (
                c2 * thigh_x + s2 * thigh_z + c3 * calf_x + s3 * calf_z,
                hip_y,
                hip_z + c2 * thigh_z - s2 * thigh_x + c3 * calf_z - s3 * calf_x,
            )
            first = scale(vary(varied, work, L.VARIED_BASE + L.V_LINK_MASS, lane, real(1.0)), x_rotate(s1, c1, first))
            store3(extra, M.first_moment, lane, add(load3(extra, M.first_moment, lane), first))
            centre = foot_in_hip(shape, knee, foot)
            foot_B = add(hip_B, x_rotate(s1, c1, centre))
            gap, normal_B = surface(terrain, cells, work, L.PATCH, lane, foot_B)
            at = rotate(load_rotation(work, lane), foot_B)
            store3(extra, M.foot_offset + 3 * leg, lane, at)
            extra[M.feet * LANES + lane] += real(0.25) * at[0]
            extra[(M.feet + 1) * LANES + lane] += real(0.25) * at[1]
            height = upright(terrain, work, lane, gap - radius, normal_B)
            shift_in(extra, M.foot_height, lane, height)
            extra[M.lowest_foot * LANES + lane] = min(height, extra[M.lowest_foot * LANES + lane])
            t = asked_torques(varied, work, rows, lane, q, qd, gains, limit)
            e = add(q, scale(real(-1.0), home))
            force = load3(rows, L.FORCE, lane)
            extra[M.torque_squared * LANES + lane] += dot(t, t)
            extra[M.joint_speed_squared * LANES + lane] += dot(qd, qd)
            extra[M.pose_squared * LANES + lane] += dot(e, e)
            extra[M.knee_squared * LANES + lane] += near_ends(q, low, high)
            touches = one if dot(force, force) > real(CONTACT_THRESHOLD**2) else zero
            shift_in(extra, M.on_ground, lane, touches)
            # how the foot's lowest point moves over the ground
            up = x_unrotate(s1, c1, load3(work, L.ROTATION + 6, lane))
            point, arm = lowered(centre, radius, up), lowered((foot[0], shape[3], foot[1]), radius, up)
            spin = load3(work, L.SPIN, lane)
            v = x_unrotate(s1, c1, add(load3(work, L.VELOCITY_B, lane), cross(spin, hip_B)))
            v = add(add(v, cross(x_unrotate(s1, c1, spin), point)), swing(qd, point, arm, shape[0]))
            rising = dot(v, up)
            extra[M.feet_share * LANES + lane] += real(0.25) * touches
            extra[M.slip_squared * LANES + lane] += touches * max(dot(v, v) - rising * rising, zero)
    ground(work, extra, terrain)
    footing(work, extra, base, terrain)
    for lane in range(LANES):
        m = vary(varied, work, L.VARIED_BASE + L.V_MASS, lane, mass)
        extra[M.per_weight * LANES + lane] = one / max(
            m * vary(varied, work, L.VARIED_BASE + L.V_GRAVITY, lane, gravity), one
        )
        com = rotate(load_rotation(work, lane), scale(real(1.0) / m, load3(extra, M.first_moment, lane)))
        x, y, z = add(load3(work, L.POSITION, lane), com)
        store3(task, K.com, lane, (x, y, z - extra[M.ground * LANES + lane]))
        rate, bend = zero, zero
        for k in range(12):
            last = task[(K.last_action + k) * LANES + lane]
            change = task[(K.action + k) * LANES + lane] - last
            bent = change - (last - task[(K.older_action + k) * LANES + lane])
            rate += change * change
            bend += bent * bent
        extra[M.action_rate_squared * LANES + lane] = rate
        extra[M.action_bend_squared * LANES + lane] = bend


@inline
def near_ends(q, low, high):
    """Return how far thigh and calf are beyond the inner eight tenths of their ranges, squared [rad^2].

    q, low, high: (3) of a leg.
    """
    total = real(0.0)
    for joint in (1, 2):
        margin = real(0.1) * (high[joint] - low[joint])
        beyond = max(max(low[joint] + margin - q[joint], q[joint] - high[joint] + margin), real(0.0))
        total += beyond * beyond
    return total


@inline
def ground(work, extra, terrain):
    """Set GROUND to the height of the ground below the base."""
    cells = per_metre(terrain)
    zero = real(0.0)
    origin = (zero, zero, zero)
    point_ground(work, terrain, cells, origin)
    for lane in range(LANES):
        extra[M.ground * LANES + lane] = patch_height(work, terrain, lane)


@inline
def patch_height(work, terrain, lane):
    """Return the height of the ground at the point whose PATCH was looked up [m]."""
    if terrain is None:
        return real(0.0)
    i = L.PATCH * LANES + lane
    h00, h10, h01, h11 = work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]
    low, high = h00 + work[i + 4 * LANES] * (h10 - h00), h01 + work[i + 4 * LANES] * (h11 - h01)
    return low + work[i + 5 * LANES] * (high - low)


@inline
def footing(work, extra, base, terrain):
    """Set FOOTING and TRUNK_GAP by the four corners of the trunk's side that looks down."""
    cells = per_metre(terrain)
    size, centre = constant3(base, C.TRUNK_SIZE), constant3(base, C.TRUNK_CENTRE)
    for lane in range(LANES):
        up = load3(work, L.ROTATION + 6, lane)
        reach = abs(up[0]) * size[0] + abs(up[1]) * size[1] + abs(up[2]) * size[2]
        extra[M.footing * LANES + lane] = real(0.0)
        extra[M.trunk_gap * LANES + lane] = work[(L.POSITION + 2) * LANES + lane] + dot(up, centre) - reach
    if terrain is not None:
        for corner in range(4):
            x = centre[0] + (size[0] if corner & 1 else -size[0])
            y = centre[1] + (size[1] if corner & 2 else -size[1])
            for lane in range(LANES):
                find_patch(terrain[1][0], cells, work, L.PATCH, lane, lower(work, lane, (x, y, centre[2]), size[2]))
            look_up(terrain[0], np.uint32(terrain[1][0][0]), work, L.PATCH)
            for lane in range(LANES):
                height = patch_height(work, terrain, lane)
                up = load3(work, L.ROTATION + 6, lane)
                rise = work[(L.POSITION + 2) * LANES + lane] + dot(up, lower(work, lane, (x, y, centre[2]), size[2]))
                i = M.trunk_gap * LANES + lane
                extra[M.footing * LANES + lane] += real(0.25) * height
                extra[i] = rise - height if corner == 0 else min(extra[i], rise - height)


@inline
def lower(work, lane, point, half):
    """Return a point (3) moved down, along the base's z axis, by half a thickness [m]."""
    return point[0], point[1], point[2] + (half if work[(L.ROTATION + 8) * LANES + lane] < real(0.0) else -half)


@inline
def shift_in(extra, row, lane, value):
    """Append a leg's value to four rows, which after all legs hold theirs in order.

    Rows that depend on the leg would keep its loop from vectorising.
    """
    i = row * LANES + lane
    a, b, c = extra[i + LANES], extra[i + 2 * LANES], extra[i + 3 * LANES]
    extra[i] = a
    extra[i + LANES] = b
    extra[i + 2 * LANES] = c
    extra[i + 3 * LANES] = value


@inline
def swing(qd, point, arm, rise):
    """Return how fast a point of the calf moves with the joints (3), hip frame [m/s].

    point: from the hip's origin; arm: from the knee's [m]; rise: of the knee's above the hip's.
    """
    return (
        qd[1] * (point[2] - rise) + qd[2] * arm[2],
        -qd[0] * point[2],
        qd[0] * point[1] - qd[1] * point[0] - qd[2] * arm[0],
    )


@inline
def own3(varied, work, lane, moment):
    """Return the first moment that the trunk carries (3), a robot's own where robots differ."""
    if varied is None:
        return moment
    return load3(work, L.VARIED_BASE + L.V_FIRST, lane)


@inline
def asked_torques(varied, work, rows, lane, q, qd, gains, limit):
    """Return the torques (3) that a leg's motors are asked for, within their limits [N m]."""
    kp, kd = gains
    return (
        asked_torque(varied, work, rows, lane, 0, q[0], qd[0], (kp[0], kd[0]), limit[0]),
        asked_torque(varied, work, rows, lane, 1, q[1], qd[1], (kp[1], kd[1]), limit[1]),
        asked_torque(varied, work, rows, lane, 2, q[2], qd[2], (kp[2], kd[2]), limit[2]),
    )


@inline
def asked_torque(varied, work, rows, lane, joint, q, qd, gains, limit):
    """Return the torque that a motor is asked for, within its limit [N m]."""
    kp, kd = own_gains(varied, work, lane, gains[0], gains[1])
    target, feedforward = rows[(L.TARGET + joint) * LANES + lane], rows[(L.TORQUE + joint) * LANES + lane]
    limit = vary(varied, rows, L.VARIED_LEG + L.V_TORQUE_LIMIT + joint, lane, limit)
    q = q + vary(varied, rows, L.VARIED_LEG + L.V_OFFSET + joint, lane, real(0.0))
    return motor_torque(target, feedforward, q, qd, kp, kd, -limit, limit)
