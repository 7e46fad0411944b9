"""The control step: its order, and the stages that every task shares: actions, measuring (measure.py), restarting.

The loops over joints are written by hand, for a leg at a time; the other stages are composed of a task's terms
(compose.py). One call takes a thread's blocks through all of it without returning to Python; only whether a block has
any episode to restart is asked once per block.
"""

import numpy as np

from environments.quadruped.fields import WIDTH, K, M, R, S
from environments.quadruped.measure import stay_in_cell
from physics import constants as C
from physics import layout as L
from physics.actuator import keep_command
from physics.jit import LANES, call, inline, kernel, real, stage
from physics.layout import choose3, load3, store3
from physics.leg import constant3, foot_in_hip, geometry, pose
from physics.mend import put_home
from physics.random import robot_key, uniform
from physics.spatial import add, dot, scale, sincos, x_rotate
from physics.vary import motor_delay

MOST_SEEN = real(1e3)  # of an observation, either way
INFINITE = real(np.inf)
# draws of a robot's key; physics/vary.py draws from 256 on
DRAW_RESET = 32
DRAW_AGE = 96


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


@stage
def restart(task, work, extra, settings, model, at_draw, ranges, seed, clock, number, staggered):
    """Put robots whose episode ended in the home pose, disturbed; at a random age if staggered.

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


@stage
def follow(task, extra, model, sheet, frames, at_reference, first, count, ended_only):
    """Take frames of the motion that robots follow into a block's rows, and find where feet and base are in them.

    sheet: (R, WIDTH); frames: (N) which row is whose; ended_only: for the robots alone whose episode ended.
    """
    rows = task[at_reference * LANES :]
    for lane in range(count):
        if ended_only == 0 or extra[M.ended * LANES + lane] > real(0.0):
            frame = frames[first + lane]
            for k in range(WIDTH):
                rows[k * LANES + lane] = sheet[frame, k]
    for lane in range(LANES):
        rows[R.reference_height * LANES + lane] = real(-1e3)
    for leg in range(4):
        hip_B, shape = geometry(model.legs[leg])
        radius = model.legs[leg][C.FOOT_RADIUS]
        joints = rows[(R.reference_joint + 3 * leg) * LANES : (R.reference_joint + 3 * leg + 3) * LANES]
        feet = rows[(R.reference_foot + 3 * leg) * LANES : (R.reference_foot + 3 * leg + 3) * LANES]
        for lane in range(LANES):
            foot_B = foot_of(load3(joints, 0, lane), hip_B, shape)
            store3(feet, 0, lane, foot_B)
            height = radius - dot(load3(rows, R.reference_up, lane), foot_B) + rows[R.reference_rise * LANES + lane]
            i = R.reference_height * LANES + lane
            rows[i] = max(rows[i], height)


@inline
def foot_of(q, hip_B, shape):
    """Return where joint angles put the centre of a leg's foot, base frame [m]."""
    ((s1, c1), _, _), knee, foot = pose(q, shape)
    return add(hip_B, x_rotate(s1, c1, foot_in_hip(shape, knee, foot)))


@inline
def foot_place(leg_rows, leg, lane):
    """Return where the centre of a leg's foot is, base frame [m]."""
    hip_B, shape = geometry(leg)
    return foot_of(load3(leg_rows, L.JOINT, lane), hip_B, shape)


@inline
def put_over_spawn(task, work, extra):
    """Move the robots that start anew to where their episodes start, which what an episode begins with may change."""
    for lane in range(LANES):
        now = extra[M.ended * LANES + lane] > real(0.0)
        for axis in range(2):
            i, j = (L.POSITION + axis) * LANES + lane, (L.ORIGIN + axis) * LANES + lane
            work[i] = task[(K.spawn + axis) * LANES + lane] if now else work[i]
            work[j] = real(0.0) if now else work[j]
    stay_in_cell(task, work)


@inline
def stand_on_ground(task, work, extra):
    """Lift or lower robots that start anew until the lowest of feet and trunk has its clearance above the ground."""
    for lane in range(LANES):
        i, j = (L.POSITION + 2) * LANES + lane, (K.com + 2) * LANES + lane
        lowest = min(extra[M.lowest_foot * LANES + lane], extra[M.trunk_gap * LANES + lane])
        down = lowest - task[K.clearance * LANES + lane]
        down = down if extra[M.ended * LANES + lane] > real(0.0) else real(0.0)
        work[i] -= down
        task[j] -= down
        for leg in range(4):
            extra[(M.foot_height + leg) * LANES + lane] -= down
        extra[M.trunk_gap * LANES + lane] -= down


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
    """Write rows out as the columns of a robot, within 1000 either way; what is not finite becomes 0."""
    for k in range(count):
        x = out[(first_row + k) * LANES + lane]
        target[robot, k] = min(max(x, -MOST_SEEN), MOST_SEEN) if abs(x) < INFINITE else real(0.0)


@kernel
def control_step(
    blocks, start, stop, work, model, addresses, at_draw, rows, settings, ranges, seed, clock, first_robot, substeps,
    staggered, half, sheet, frames, starts, points, actions, obs, privileged, final_obs, final_privileged, reward,
    terminated, truncated, episode_return, episode_steps,
):  # fmt: skip
    """Take the robots of blocks[start:stop] through one control step; with substeps 0, start every episode instead.

    addresses: of the stages; at_draw: of vary.draw_varied(); rows: first rows of terms and of the motion that is
    followed, among the task's, and of sums, counts of ends and columns, in the work buffer; settings: the task's
    numbers; ranges: vary.pack() or None; first_robot: number of blocks[0]'s first, by which robots draw; staggered:
    start at random ages; half: 1 to end before the physics, 2 to begin after them, as another engine's are put between,
    else 0; sheet: frames of the motion that is followed, and of each robot the one of this step's end and
    the one that its next episode starts with, (N); points: where the ground is seen, (points, 2); actions: (N, 12).

    Written: obs (N, O), privileged (N, P), the same of the ended episodes' last instant in final_*, reward, terminated,
    truncated (N), return and length of the episodes that ended (N).
    """
    at_advance, at_act, at_events, at_measure, at_follow, at_terminate, at_reward = addresses[:7]
    at_restart, at_begin, at_renew, at_observe, at_look, at_feet = addresses[7:]
    at_terms, at_reference, at_scan, at_sums, at_ends, at_out = rows
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
        if substeps > 0 and half != 2:
            call(at_act, task, work, settings, model, actions, first, count)
            call(at_events, task, work, extra, settings, model, seed, clock, number)
        if half == 1:
            L.leave(work, blocks, model, b)
            continue
        if substeps > 0:
            if half == 0:
                call(at_advance, work, model, substeps)
            call(at_measure, task, work, extra, settings, model, 1)
            if at_follow != 0:
                call(at_follow, task, extra, model, sheet, frames, at_reference, first, count, 0)
            call(at_terminate, task, work, extra, settings, model, ends, count)
            call(at_reward, task, work, extra, settings, model, terms, sums, count)
            for lane in range(LANES):
                task[K.episode_return * LANES + lane] += extra[M.total * LANES + lane]
        else:
            for lane in range(LANES):
                extra[M.ended * LANES + lane] = real(0.5)
        any_ended = False
        for lane in range(count):
            ended = extra[M.ended * LANES + lane]
            any_ended |= ended > real(0.0)
            reward[first + lane] = extra[M.total * LANES + lane]
            terminated[first + lane] = ended > real(1.5)
            truncated[first + lane] = ended == real(1.0)
            episode_return[first + lane] = task[K.episode_return * LANES + lane]
            episode_steps[first + lane] = task[K.age * LANES + lane]
        if at_look != 0:
            call(at_look, task, work, extra, settings, model, points, at_scan, seed, clock, number, 0)
        if at_feet != 0:
            call(at_feet, task, work, extra, model, at_scan + len(points))
        if any_ended:
            call(at_observe, task, work, extra, settings, model, out, seed, clock, number)
            for lane in range(count):
                if extra[M.ended * LANES + lane] > real(0.0):
                    emit(out, 0, columns, first + lane, lane, final_obs)
                    emit(out, columns, more, first + lane, lane, final_privileged)
            call(at_restart, task, work, extra, settings, model, at_draw, ranges, seed, clock, number, staggered)
            if at_follow != 0:
                call(at_follow, task, extra, model, sheet, starts, at_reference, first, count, 1)
            call(at_begin, task, work, extra, settings, model, seed, clock, number)
            put_over_spawn(task, work, extra)
            call(at_measure, task, work, extra, settings, model, 0)
            stand_on_ground(task, work, extra)
            if at_look != 0:
                call(at_look, task, work, extra, settings, model, points, at_scan, seed, clock, number, 1)
            if at_feet != 0:
                call(at_feet, task, work, extra, model, at_scan + len(points))
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
    at_measure, at_reward = addresses[3], addresses[6]
    at_terms, _, _, at_sums, _, _ = rows
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
    at_measure = addresses[3]
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        first = b * LANES
        L.enter(blocks, model, b, work)
        call(at_measure, task, work, extra, settings, model, 0)
        call(at_metrics, task, work, extra, settings, model, out, first, min(LANES, len(out) - first))
