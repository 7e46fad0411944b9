"""The control step of the quadruped, fused: command, push, physics, reward, end, reset, observation.

One call takes a share of the blocks through all of it without returning to Python. Every stage is a
loop over the lanes of a block without branches; only whether a block has any episode to restart is
asked once per block.
"""

import numpy as np

from environments import rewards
from environments.quadruped_rows import (
    ACTION,
    ACTION_SCALE,
    AGE,
    COM,
    CONTROL_DT,
    COS_FALL_TILT,
    DRAW_AGE,
    DRAW_BIAS,
    DRAW_GOAL,
    DRAW_PUSH,
    DRAW_RESET,
    ENDED,
    EPISODE_STEPS,
    FALL_HEIGHT,
    FEET,
    GOAL,
    GOAL_HEIGHT,
    GOAL_IN,
    GOAL_INTERVAL,
    GOAL_RADIUS,
    GROUND,
    HOLD_SHARE,
    LAST_ACTION,
    LOWEST,
    NOISE_BIAS,
    NOISE_GRAVITY_BIAS,
    NOISE_SPIN_BIAS,
    NUM_TERMS,
    PUSH,
    PUSH_AGE,
    PUSH_IN,
    PUSH_INTERVAL,
    PUSH_SPEED,
    PUSH_SPIN,
    RESET_JOINT,
    RESET_SPEED,
    RESET_SPIN,
    RESET_TILT,
    RESET_VELOCITY,
    RETURN,
    SPAWN,
    SUMS,
    TERMS,
    TORQUE_SCALE,
    WEIGHTS,
)
from environments.quadruped_senses import emit, measure, observe
from physics import constants as C
from physics import layout as L
from physics.actuator import keep_command
from physics.base import recentre
from physics.jit import LANES, inline, kernel, real
from physics.layout import choose3, load3, store3
from physics.leg import constant3
from physics.mend import put_home
from physics.random import robot_key, uniform
from physics.simulation_step import substep
from physics.spatial import add, dot, scale, sincos
from physics.vary import draw_varied, motor_delay


@inline
def command(task, work, constants, model, actions, first, count):
    """Take the actions of a block: as joint targets about the home pose, or as torques about those that hold it."""
    action_scale, torque_scale, hold_share = constants[ACTION_SCALE], constants[TORQUE_SCALE], constants[HOLD_SHARE]
    keep_command(model.motor_blocks, model.varied_blocks, work, motor_delay(model.motors))
    latest, last = task[ACTION * LANES : (ACTION + 12) * LANES], task[LAST_ACTION * LANES : (LAST_ACTION + 12) * LANES]
    for i in range(12 * LANES):
        last[i] = latest[i]
    for lane in range(count):
        for k in range(12):
            a = actions[first + lane, k]
            latest[k * LANES + lane] = a if abs(a) < real(100.0) else real(0.0)
    for leg in range(4):
        rows, mine = L.leg_rows(work, leg), latest[3 * leg * LANES : (3 * leg + 3) * LANES]
        low, high, home = constant3(model.legs[leg], C.LOW), constant3(model.legs[leg], C.HIGH), constant3(model.legs[leg], C.HOME)
        hold = scale(hold_share, constant3(model.legs[leg], C.HOLD))
        for lane in range(LANES):
            a = load3(mine, 0, lane)
            x, y, z = add(home, scale(action_scale, a))
            store3(rows, L.TARGET, lane, (min(max(x, low[0]), high[0]), min(max(y, low[1]), high[1]), min(max(z, low[2]), high[2])))
            store3(rows, L.TORQUE, lane, add(hold, scale(torque_scale, a)))


@inline
def push(task, work, constants, seed, clock, first):
    """Kick the robots whose time has come."""
    dt = constants[CONTROL_DT]
    slow, fast, kick = constants[PUSH_SPEED], constants[PUSH_SPEED + 1], constants[PUSH_SPIN]
    soon, late = constants[PUSH_INTERVAL], constants[PUSH_INTERVAL + 1]
    for lane in range(LANES):
        key = robot_key(seed, clock, first + lane)
        left = task[PUSH_IN * LANES + lane] - dt
        now = real(1.0) if left <= real(0.0) else real(0.0)
        s, c = sincos(uniform(key, DRAW_PUSH, real(0.0), real(6.2831853)))
        speed = now * uniform(key, DRAW_PUSH + 1, slow, fast)
        v = speed * c, speed * s, real(0.0)
        store3(work, L.VELOCITY, lane, add(load3(work, L.VELOCITY, lane), v))
        w = uniform(key, DRAW_PUSH + 2, -kick, kick), uniform(key, DRAW_PUSH + 3, -kick, kick), uniform(key, DRAW_PUSH + 4, -kick, kick)
        store3(work, L.SPIN, lane, add(load3(work, L.SPIN, lane), scale(now, w)))
        task[PUSH_IN * LANES + lane] = uniform(key, DRAW_PUSH + 5, soon, late) if left <= real(0.0) else left
        store3(task, PUSH, lane, add(scale(real(1.0) - now, load3(task, PUSH, lane)), v))
        task[PUSH_AGE * LANES + lane] = (real(1.0) - now) * (task[PUSH_AGE * LANES + lane] + dt)


@inline
def stay_in_cell(task, work):
    """Re-centre the world on the robot, goal and centre of mass included."""
    for lane in range(LANES):
        for axis in range(2):
            shift = recentre(work, lane, axis)
            task[(GOAL + axis) * LANES + lane] -= shift


@inline
def reward(task, work, extra, constants):
    """Set the weighted reward terms of this instant, per control step, all but the fall's."""
    dt = constants[CONTROL_DT]
    (w0, w1, w2), (w3, w4, w5) = constant3(constants, WEIGHTS), constant3(constants, WEIGHTS + 3)
    (w6, w7, w8), (w9, w10, w11) = constant3(constants, WEIGHTS + 6), constant3(constants, WEIGHTS + 9)
    for lane in range(LANES):
        v, spin, up = load3(work, L.VELOCITY, lane), load3(work, L.SPIN, lane), load3(work, L.ROTATION + 6, lane)
        offset = add(load3(task, GOAL, lane), scale(real(-1.0), load3(task, COM, lane)))
        store3(task, TERMS, lane, scale(dt, (w0 * rewards.goal(offset), w1 * rewards.stillness(v), w2 * rewards.yaw(spin))))
        store3(task, TERMS + 3, lane, scale(dt, (w3 * rewards.vertical_velocity(v), w4 * rewards.tumble(spin), w5 * rewards.orientation(up))))
        torque2, speed2, pose2 = load3(extra, SUMS, lane)
        feet, rate2 = extra[(SUMS + 3) * LANES + lane], extra[(SUMS + 4) * LANES + lane]
        store3(task, TERMS + 6, lane, scale(dt, (w6 * torque2, w7 * rate2, w8 * pose2)))
        store3(task, TERMS + 9, lane, scale(dt, (w9 * speed2, w10 * feet, w11)))


@inline
def total_reward(task, lane):
    """Return the sum of the terms, not below 0, less the fall's."""
    total = real(0.0)
    for k in range(NUM_TERMS - 1):
        total += task[(TERMS + k) * LANES + lane]
    return max(total, real(0.0)) + task[(TERMS + NUM_TERMS - 1) * LANES + lane]


@inline
def end(task, work, extra, constants, base):
    """Decide which episodes ended: ENDED is 0 for no, 1 for a fall, 2 for time; add up the return."""
    cos_tilt, min_height, steps = constants[COS_FALL_TILT], constants[FALL_HEIGHT], constants[EPISODE_STEPS]
    fall_weight = constants[WEIGHTS + NUM_TERMS - 1]
    size = constant3(base, C.TRUNK_SIZE)
    for lane in range(LANES):
        up = load3(work, L.ROTATION + 6, lane)
        p = load3(work, L.POSITION, lane)
        height = p[2] - extra[GROUND * LANES + lane]
        lowest_corner = height - abs(up[0]) * size[0] - abs(up[1]) * size[1] - abs(up[2]) * size[2]
        v, spin = load3(work, L.VELOCITY, lane), load3(work, L.SPIN, lane)
        origin = work[L.ORIGIN * LANES + lane] + work[(L.ORIGIN + 1) * LANES + lane]
        size2 = dot(p, p) + dot(v, v) + dot(spin, spin) + extra[(SUMS + 1) * LANES + lane] + extra[(SUMS + 2) * LANES + lane]
        finite = size2 + (origin - origin) < real(1e8)
        stands = finite & (up[2] > cos_tilt) & (height > min_height) & (lowest_corner > real(0.0))
        work[L.BROKEN * LANES + lane] += real(0.0) if finite else real(1.0)
        age = task[AGE * LANES + lane] + real(1.0)
        task[AGE * LANES + lane] = age
        task[(TERMS + NUM_TERMS - 1) * LANES + lane] = real(0.0) if stands else fall_weight
        for k in range(NUM_TERMS - 1):
            i = (TERMS + k) * LANES + lane
            task[i] = task[i] if finite else real(0.0)
        extra[ENDED * LANES + lane] = (real(2.0) if age >= steps else real(0.0)) if stands else real(1.0)
        task[RETURN * LANES + lane] += total_reward(task, lane)


@inline
def new_goals(task, work, extra, constants, base, seed, clock, first):
    """Give the robots whose time has come a new goal about the middle of their feet."""
    dt, radius, span = constants[CONTROL_DT], constants[GOAL_RADIUS], constants[GOAL_HEIGHT]
    soon, late = constants[GOAL_INTERVAL], constants[GOAL_INTERVAL + 1]
    for lane in range(LANES):
        key = robot_key(seed, clock, first + lane)
        left = task[GOAL_IN * LANES + lane] - dt
        now = left <= real(0.0)
        s, c = sincos(uniform(key, DRAW_GOAL, real(0.0), real(6.2831853)))
        distance = radius * np.sqrt(uniform(key, DRAW_GOAL + 1, real(0.0), real(1.0)))
        p, com, old = load3(work, L.POSITION, lane), load3(task, COM, lane), load3(task, GOAL, lane)
        x = p[0] + extra[FEET * LANES + lane] + distance * c
        y = p[1] + extra[(FEET + 1) * LANES + lane] + distance * s
        # the centre of mass of the home pose lies as much below the base origin as it does now, nearly
        height = p[2] - extra[GROUND * LANES + lane]
        z = base[C.HOME_HEIGHT] + com[2] - height + uniform(key, DRAW_GOAL + 2, -span, span)
        store3(task, GOAL, lane, (x if now else old[0], y if now else old[1], z if now else old[2]))
        task[GOAL_IN * LANES + lane] = uniform(key, DRAW_GOAL + 3, soon, late) if now else left


@inline
def restart(task, work, extra, constants, model, ranges, noise, seed, clock, first, staggered):
    """Start a new episode where the last one ended: the home pose, disturbed, over its spawn; at a random age if staggered."""
    oldest = constants[EPISODE_STEPS] if staggered else real(0.0)
    spread, speed, tilt = constants[RESET_JOINT], constants[RESET_SPEED], constants[RESET_TILT]
    velocity, turn = constants[RESET_VELOCITY], constants[RESET_SPIN]
    soon, late = constants[PUSH_INTERVAL], constants[PUSH_INTERVAL + 1]
    zero = real(0.0)
    none = (zero, zero, zero)
    marks = extra[ENDED * LANES : (ENDED + 1) * LANES]
    put_home(work, model.base, model.legs, model.motor_blocks, marks)
    for lane in range(LANES):
        key = robot_key(seed, clock, first + lane)
        now = marks[lane] > zero
        # half angles of yaw, pitch, roll
        sy, cy = sincos(uniform(key, DRAW_RESET, real(-1.5707963), real(1.5707963)))
        sp, cp = sincos(real(0.5) * uniform(key, DRAW_RESET + 1, -tilt, tilt))
        sr, cr = sincos(real(0.5) * uniform(key, DRAW_RESET + 2, -tilt, tilt))
        i = L.QUATERNION * LANES + lane
        work[i] = cr * cp * cy + sr * sp * sy if now else work[i]
        choose3(work, L.QUATERNION + 1, lane, now, (sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy))
        v = uniform(key, DRAW_RESET + 3, -velocity, velocity), uniform(key, DRAW_RESET + 4, -velocity, velocity), zero
        w = uniform(key, DRAW_RESET + 5, -turn, turn), uniform(key, DRAW_RESET + 6, -turn, turn), uniform(key, DRAW_RESET + 7, -turn, turn)
        choose3(work, L.VELOCITY, lane, now, v)
        choose3(work, L.SPIN, lane, now, w)
        for axis in range(2):
            work[(L.POSITION + axis) * LANES + lane] = task[(SPAWN + axis) * LANES + lane] if now else work[(L.POSITION + axis) * LANES + lane]
            work[(L.ORIGIN + axis) * LANES + lane] = zero if now else work[(L.ORIGIN + axis) * LANES + lane]
        choose3(task, PUSH, lane, now, none)
        j = lane
        task[AGE * LANES + j] = np.floor(uniform(key, DRAW_AGE, zero, oldest)) if now else task[AGE * LANES + j]
        task[RETURN * LANES + j] = zero if now else task[RETURN * LANES + j]
        task[PUSH_AGE * LANES + j] = real(1e3) if now else task[PUSH_AGE * LANES + j]
        task[PUSH_IN * LANES + j] = uniform(key, DRAW_RESET + 8, soon, late) if now else task[PUSH_IN * LANES + j]
        task[GOAL_IN * LANES + j] = zero if now else task[GOAL_IN * LANES + j]
    stay_in_cell(task, work)
    for k in range(24):
        rows = task[(ACTION + k) * LANES : (ACTION + k + 1) * LANES]
        for lane in range(LANES):
            rows[lane] = zero if marks[lane] > zero else rows[lane]
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        home = constant3(model.legs[leg], C.HOME)
        for lane in range(LANES):
            key = robot_key(seed, clock, first + lane)
            now = marks[lane] > zero
            draw = DRAW_RESET + 16 + 6 * leg
            q = uniform(key, draw, -spread, spread), uniform(key, draw + 1, -spread, spread), uniform(key, draw + 2, -spread, spread)
            qd = uniform(key, draw + 3, -speed, speed), uniform(key, draw + 4, -speed, speed), uniform(key, draw + 5, -speed, speed)
            choose3(rows, L.JOINT, lane, now, add(home, q))
            choose3(rows, L.JOINT_SPEED, lane, now, qd)
            choose3(rows, L.TARGET, lane, now, home)
            choose3(rows, L.TORQUE, lane, now, none)
    draw_bias(task, noise, marks, seed, clock, first)
    if ranges is not None:
        draw_varied(work, model, ranges, seed, clock, first, marks)


@inline
def draw_bias(task, noise, marks, seed, clock, first):
    """Draw the bias of a new episode's sensors."""
    if noise is not None:
        spin, gravity = noise[NOISE_SPIN_BIAS], noise[NOISE_GRAVITY_BIAS]
        for lane in range(LANES):
            key, now = robot_key(seed, clock, first + lane), marks[lane] > real(0.0)
            w = uniform(key, DRAW_BIAS, -spin, spin), uniform(key, DRAW_BIAS + 1, -spin, spin), uniform(key, DRAW_BIAS + 2, -spin, spin)
            g = uniform(key, DRAW_BIAS + 3, -gravity, gravity), uniform(key, DRAW_BIAS + 4, -gravity, gravity), uniform(key, DRAW_BIAS + 5, -gravity, gravity)
            choose3(task, NOISE_BIAS, lane, now, w)
            choose3(task, NOISE_BIAS + 3, lane, now, g)


@inline
def stand_on_ground(task, work, extra):
    """Lift or lower the robots that start anew until their lowest foot touches the ground."""
    for lane in range(LANES):
        i, j = (L.POSITION + 2) * LANES + lane, (COM + 2) * LANES + lane
        down = extra[LOWEST * LANES + lane] if extra[ENDED * LANES + lane] > real(0.0) else real(0.0)
        work[i] -= down
        task[j] -= down


@kernel
def control_step(
    blocks, start, stop, work, model, constants, ranges, noise, seed, clock, substeps, staggered, actions,
    obs, privileged, final_obs, final_privileged, rewards_out, terminated, truncated, episode_return, episode_steps,
):  # fmt: skip
    """Take the robots of blocks[start:stop] through one control step; with substeps 0, start every episode instead.

    constants: (TASK_CONSTANTS); ranges: vary.pack() or None; noise: (NOISE_CONSTANTS) or None; staggered:
    start at random ages; actions: (N, 12). Written: obs (N, NUM_OBS), privileged (N, NUM_PRIVILEGED),
    the same of the ended episodes' last instant in final_*, reward, terminated, truncated (N), return
    and length of the episodes that ended (N).
    """
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        first = b * LANES
        count = min(LANES, len(actions) - first)
        L.enter(blocks, model, b, work)
        if substeps > 0:
            command(task, work, constants, model, actions, first, count)
            push(task, work, constants, seed, clock, first)
            for s in range(substeps):
                substep(work, model, s == substeps - 1)
            stay_in_cell(task, work)
            measure(task, work, extra, model)
            reward(task, work, extra, constants)
            end(task, work, extra, constants, model.base)
        else:
            for lane in range(LANES):
                extra[ENDED * LANES + lane] = real(2.0)
        any_ended = False
        for lane in range(count):
            ended = extra[ENDED * LANES + lane]
            any_ended |= ended > real(0.0)
            rewards_out[first + lane] = total_reward(task, lane)
            terminated[first + lane] = ended == real(1.0)
            truncated[first + lane] = ended == real(2.0)
            episode_return[first + lane] = task[RETURN * LANES + lane]
            episode_steps[first + lane] = task[AGE * LANES + lane]
        if any_ended:
            observe(task, work, extra, constants, model, noise, seed, clock, first)
            for lane in range(count):
                if extra[ENDED * LANES + lane] > real(0.0):
                    emit(extra, first + lane, lane, final_obs, final_privileged)
            restart(task, work, extra, constants, model, ranges, noise, seed, clock, first, staggered)
            measure(task, work, extra, model)
            stand_on_ground(task, work, extra)
        new_goals(task, work, extra, constants, model.base, seed, clock, first)
        observe(task, work, extra, constants, model, noise, seed, clock, first)
        for lane in range(count):
            emit(extra, first + lane, lane, obs, privileged)
        L.leave(work, blocks, model, b)
        if any_ended:
            L.varied_out(work, model.varied_blocks, b)


@kernel
def reward_step(blocks, start, stop, work, model, constants, out):
    """Set out (N) to the reward of the state as it is, without the fall's term; nothing else changes but TERMS."""
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        first = b * LANES
        L.enter(blocks, model, b, work)
        measure(task, work, extra, model)
        reward(task, work, extra, constants)
        for lane in range(min(LANES, len(out) - first)):
            task[(TERMS + NUM_TERMS - 1) * LANES + lane] = real(0.0)
            out[first + lane] = total_reward(task, lane)
