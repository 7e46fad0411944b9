"""The control step: its order, and the stages that every task shares: actions, measuring, restarting.

The loops over joints are written by hand, for a leg at a time; the other stages are composed of a task's terms (compose.py). One
call takes a share of the blocks through all of it without returning to Python; only whether a block has any episode to restart
is asked once per block.
"""

import numpy as np

from environments.quadruped.fields import CONTACT_THRESHOLD, Field, K, M, rows
from physics import constants as C
from physics import layout as L
from physics.actuator import keep_command, motor_torque, own_gains
from physics.base import attitude, load_rotation, point_ground, recentre
from physics.contact import per_metre, surface, upright
from physics.jit import LANES, call, inline, kernel, real, stage
from physics.layout import choose3, load3, store3, vary
from physics.leg import constant3, foot_in_hip, geometry, link, lowered, pose
from physics.mend import put_home
from physics.random import robot_key, uniform
from physics.simulation_step import leg_ground
from physics.spatial import add, cross, dot, rotate, scale, sincos, unrotate, x_rotate, x_unrotate
from physics.vary import motor_delay

# draws of a robot's key; physics/vary.py draws from 256 on
DRAW_RESET = 32
DRAW_AGE = 96


# What these stages read of the settings, which are the first of them
SHARED = (
    "ctrl_dt", "max_episode_steps", "action_scale", "torque_scale", "hold_share",
    "reset_joint_position", "reset_joint_velocity", "reset_tilt", "reset_velocity", "reset_spin",
)  # fmt: skip
S = rows([Field(name, 1, "", "") for name in SHARED], "Settings")


@stage
def act(task, work, settings, model, actions, first, count):
    """Take the actions of a block: as joint targets about the home pose, or as torques about those that hold it."""
    action_scale, torque_scale, hold_share = settings[S.action_scale], settings[S.torque_scale], settings[S.hold_share]
    keep_command(model.motor_blocks, model.varied_blocks, work, motor_delay(model.motors))
    latest, last = (
        task[K.action * LANES : (K.action + 12) * LANES],
        task[K.last_action * LANES : (K.last_action + 12) * LANES],
    )
    older = task[K.older_action * LANES : (K.older_action + 12) * LANES]
    for i in range(12 * LANES):
        older[i] = last[i]
        last[i] = latest[i]
    for lane in range(count):
        for k in range(12):
            a = actions[first + lane, k]
            latest[k * LANES + lane] = a if abs(a) < real(100.0) else real(0.0)
    for leg in range(4):
        leg_rows, mine = L.leg_rows(work, leg), latest[3 * leg * LANES : (3 * leg + 3) * LANES]
        low, high, home = (
            constant3(model.legs[leg], C.LOW),
            constant3(model.legs[leg], C.HIGH),
            constant3(model.legs[leg], C.HOME),
        )
        hold = scale(hold_share, constant3(model.legs[leg], C.HOLD))
        for lane in range(LANES):
            a = load3(mine, 0, lane)
            x, y, z = add(home, scale(action_scale, a))
            store3(
                leg_rows,
                L.TARGET,
                lane,
                (min(max(x, low[0]), high[0]), min(max(y, low[1]), high[1]), min(max(z, low[2]), high[2])),
            )
            store3(leg_rows, L.TORQUE, lane, add(hold, scale(torque_scale, a)))


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
    """Find what MEASURED and some of KEPT say of a state; after_physics: of one that a step has led to, else set otherwise."""
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
    gains, cells = (world[C.KP], world[C.KD]), per_metre(terrain)
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
    """Return angles beyond the inner eight tenths of their ranges, squared, of thigh and calf [rad^2]; q, low, high (3) of a leg."""
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
        if terrain is None:
            extra[M.ground * LANES + lane] = zero
        else:
            i = L.PATCH * LANES + lane
            h00, h10, h01, h11 = work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]
            low, high = h00 + work[i + 4 * LANES] * (h10 - h00), h01 + work[i + 4 * LANES] * (h11 - h01)
            extra[M.ground * LANES + lane] = low + work[i + 5 * LANES] * (high - low)


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


@stage
def restart(task, work, extra, settings, model, at_draw, ranges, seed, clock, number, staggered):
    """Put robots whose episode ended in the home pose, disturbed, over their spawn; at a random age if staggered.

    number: of the block's first robot; at_draw: address of vary.draw_varied(); ranges: vary.pack() or None.
    """
    oldest = settings[S.max_episode_steps] if staggered else real(0.0)
    spread, speed, tilt = settings[S.reset_joint_position], settings[S.reset_joint_velocity], settings[S.reset_tilt]
    velocity, turn = settings[S.reset_velocity], settings[S.reset_spin]
    zero = real(0.0)
    none = (zero, zero, zero)
    marks = extra[M.ended * LANES : (M.ended + 1) * LANES]
    put_home(work, model.base, model.legs, model.motor_blocks, marks)
    for lane in range(LANES):
        key = robot_key(seed, clock, number + lane)
        now = marks[lane] > zero
        # half angles of yaw, pitch, roll
        sy, cy = sincos(uniform(key, DRAW_RESET, real(-1.5707963), real(1.5707963)))
        sp, cp = sincos(real(0.5) * uniform(key, DRAW_RESET + 1, -tilt, tilt))
        sr, cr = sincos(real(0.5) * uniform(key, DRAW_RESET + 2, -tilt, tilt))
        i = L.QUATERNION * LANES + lane
        work[i] = cr * cp * cy + sr * sp * sy if now else work[i]
        choose3(
            work,
            L.QUATERNION + 1,
            lane,
            now,
            (sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy),
        )
        v = uniform(key, DRAW_RESET + 3, -velocity, velocity), uniform(key, DRAW_RESET + 4, -velocity, velocity), zero
        w = (
            uniform(key, DRAW_RESET + 5, -turn, turn),
            uniform(key, DRAW_RESET + 6, -turn, turn),
            uniform(key, DRAW_RESET + 7, -turn, turn),
        )
        choose3(work, L.VELOCITY, lane, now, v)
        choose3(work, L.SPIN, lane, now, w)
        for axis in range(2):
            work[(L.POSITION + axis) * LANES + lane] = (
                task[(K.spawn + axis) * LANES + lane] if now else work[(L.POSITION + axis) * LANES + lane]
            )
            work[(L.ORIGIN + axis) * LANES + lane] = zero if now else work[(L.ORIGIN + axis) * LANES + lane]
        task[K.age * LANES + lane] = (
            np.floor(uniform(key, DRAW_AGE, zero, oldest)) if now else task[K.age * LANES + lane]
        )
    stay_in_cell(task, work)
    for leg in range(4):
        leg_rows = L.leg_rows(work, leg)
        home = constant3(model.legs[leg], C.HOME)
        for lane in range(LANES):
            key = robot_key(seed, clock, number + lane)
            now = marks[lane] > zero
            draw = DRAW_RESET + 16 + 6 * leg
            q = (
                uniform(key, draw, -spread, spread),
                uniform(key, draw + 1, -spread, spread),
                uniform(key, draw + 2, -spread, spread),
            )
            qd = (
                uniform(key, draw + 3, -speed, speed),
                uniform(key, draw + 4, -speed, speed),
                uniform(key, draw + 5, -speed, speed),
            )
            choose3(leg_rows, L.JOINT, lane, now, add(home, q))
            choose3(leg_rows, L.JOINT_SPEED, lane, now, qd)
            choose3(leg_rows, L.TARGET, lane, now, home)
            choose3(leg_rows, L.TORQUE, lane, now, none)
    if ranges is not None:
        call(at_draw, work, model, ranges, seed, clock, number, marks)


@inline
def stand_on_ground(task, work, extra):
    """Lift or lower the robots that start anew until their lowest foot touches the ground."""
    for lane in range(LANES):
        i, j = (L.POSITION + 2) * LANES + lane, (K.com + 2) * LANES + lane
        down = extra[M.lowest_foot * LANES + lane] if extra[M.ended * LANES + lane] > real(0.0) else real(0.0)
        work[i] -= down
        task[j] -= down
        for leg in range(4):
            extra[(M.foot_height + leg) * LANES + lane] -= down


@inline
def joint_reading(varied, leg_rows, lane):
    """Return the measured joint angles of a leg (3), with their errors where robots differ."""
    q = load3(leg_rows, L.JOINT, lane)
    if varied is None:
        return q
    return add(q, load3(leg_rows, L.VARIED_LEG + L.V_OFFSET, lane))


@inline
def foot_forces(work, lane):
    """Return the vertical contact force on each foot (4) [N]."""
    i, size = (L.leg_row(0, L.FORCE) + 2) * LANES + lane, L.LEG_WORK_ROWS * LANES
    return work[i], work[i + size], work[i + 2 * size], work[i + 3 * size]


@inline
def friction_ratio(varied, work, world, lane):
    """Return foot friction, times the model's."""
    if varied is None:
        return real(1.0)
    return work[(L.VARIED_BASE + L.V_KINETIC) * LANES + lane] / max(world[C.KINETIC], real(1e-6))


@inline
def trunk_mass_ratio(varied, work, base, lane):
    """Return trunk mass, times the model's."""
    if varied is None:
        return real(1.0)
    mass, links = work[(L.VARIED_BASE + L.V_MASS) * LANES + lane], work[(L.VARIED_BASE + L.V_LINK_MASS) * LANES + lane]
    trunk = base[C.TRUNK]
    return (mass - links * (base[C.BASE_MASS] - trunk)) / trunk


@inline
def emit(out, first_row, count, robot, lane, target):
    """Write rows out as the columns of a robot; what is not finite becomes 0."""
    for k in range(count):
        x = out[(first_row + k) * LANES + lane]
        target[robot, k] = x if abs(x) < real(1e3) else real(0.0)


@kernel
def control_step(
    blocks, start, stop, work, model, addresses, at_draw, rows, settings, ranges, seed, clock, first_robot, substeps, staggered, actions,
    obs, privileged, final_obs, final_privileged, reward, terminated, truncated, episode_return, episode_steps,
):  # fmt: skip
    """Take the robots of blocks[start:stop] through one control step; with substeps 0, start every episode instead.

    addresses: of the stages; at_draw: of vary.draw_varied(); rows: first rows of terms, among the task's, and of sums, counts of ends
    and columns, in the work buffer; settings: the task's numbers; ranges: vary.pack() or None; first_robot: number of blocks[0]'s
    first, by which robots draw; staggered: start at random ages; actions: (N, 12). Written: obs (N, O), privileged (N, P), the same of the ended
    episodes' last instant in final_*, reward, terminated, truncated (N), return and length of the episodes that ended (N).
    """
    at_advance, at_act, at_events, at_measure, at_terminate, at_reward, at_restart, at_begin, at_renew, at_observe = (
        addresses
    )
    at_terms, at_sums, at_ends, at_out = rows
    extra = work[L.WORK_ROWS * LANES :]
    sums, ends, out = extra[at_sums * LANES :], extra[at_ends * LANES :], extra[at_out * LANES :]
    columns, more = obs.shape[1], privileged.shape[1]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        terms = task[at_terms * LANES :]
        first = b * LANES
        number = first_robot + first
        count = min(LANES, len(actions) - first)
        L.enter(blocks, model, b, work)
        if substeps > 0:
            call(at_act, task, work, settings, model, actions, first, count)
            call(at_events, task, work, extra, settings, model, seed, clock, number)
            call(at_advance, work, model, substeps)
            call(at_measure, task, work, extra, settings, model, 1)
            call(at_terminate, task, work, extra, settings, model, ends, count)
            call(at_reward, task, work, extra, settings, model, terms, sums, count)
            for lane in range(LANES):
                task[K.episode_return * LANES + lane] += extra[M.total * LANES + lane]
        else:
            for lane in range(LANES):
                extra[M.ended * LANES + lane] = real(1.0)
        any_ended = False
        for lane in range(count):
            ended = extra[M.ended * LANES + lane]
            any_ended |= ended > real(0.0)
            reward[first + lane] = extra[M.total * LANES + lane]
            terminated[first + lane] = ended > real(1.5)
            truncated[first + lane] = ended == real(1.0)
            episode_return[first + lane] = task[K.episode_return * LANES + lane]
            episode_steps[first + lane] = task[K.age * LANES + lane]
        if any_ended:
            call(at_observe, task, work, extra, settings, model, out, seed, clock, number)
            for lane in range(count):
                if extra[M.ended * LANES + lane] > real(0.0):
                    emit(out, 0, columns, first + lane, lane, final_obs)
                    emit(out, columns, more, first + lane, lane, final_privileged)
            call(at_restart, task, work, extra, settings, model, at_draw, ranges, seed, clock, number, staggered)
            call(at_begin, task, work, extra, settings, model, seed, clock, number)
            call(at_measure, task, work, extra, settings, model, 0)
            stand_on_ground(task, work, extra)
        call(at_renew, task, work, extra, settings, model, seed, clock, number)
        call(at_observe, task, work, extra, settings, model, out, seed, clock, number)
        for lane in range(count):
            emit(out, 0, columns, first + lane, lane, obs)
            emit(out, columns, more, first + lane, lane, privileged)
        L.leave(work, blocks, model, b)
        if any_ended:
            L.varied_out(work, model.varied_blocks, model.joints_differ, b)


@kernel
def reward_step(blocks, start, stop, work, model, addresses, rows, settings, out):
    """Set out (N) to the reward of the state as it is, as if nobody fell; nothing else changes but the terms."""
    _, _, _, at_measure, _, at_reward, _, _, _, _ = addresses
    at_terms, at_sums, _, _ = rows
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        terms = task[at_terms * LANES :]
        first = b * LANES
        L.enter(blocks, model, b, work)
        call(at_measure, task, work, extra, settings, model, 0)
        for lane in range(LANES):
            extra[M.finite * LANES + lane] = real(1.0)
            extra[M.ended * LANES + lane] = real(0.0)
        call(at_reward, task, work, extra, settings, model, terms, extra[at_sums * LANES :], 0)
        for lane in range(min(LANES, len(out) - first)):
            out[first + lane] = extra[M.total * LANES + lane]


@kernel
def metrics_step(blocks, start, stop, work, model, addresses, at_metrics, settings, out):
    """Set out (N, metrics) to what evaluations tell of the state as it is."""
    _, _, _, at_measure, _, _, _, _, _, _ = addresses
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        first = b * LANES
        L.enter(blocks, model, b, work)
        call(at_measure, task, work, extra, settings, model, 0)
        call(at_metrics, task, work, extra, settings, model, out, first, min(LANES, len(out) - first))
