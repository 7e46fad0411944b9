"""The control step of the quadruped, fused: command, push, physics, reward, end, reset, observation.

One call takes a share of the blocks through all of it without returning to Python. Every stage is a
loop over the lanes of a block without branches; only whether a block has any episode to restart is
asked once per block.
"""

import numpy as np

from environments.quadruped_commands import draw_push, new_commands, new_goals, push
from environments.quadruped_rewards import feel_ground, reward, total_reward
from environments.quadruped_rows import (
    ACTION,
    ACTION_SCALE,
    AGE,
    AIR_TIME,
    COM,
    COMMAND_IN,
    COS_FALL_TILT,
    DRAW_AGE,
    DRAW_BIAS,
    DRAW_RESET,
    ENDED,
    EPISODE_STEPS,
    FALL_HEIGHT,
    FOOT_HEIGHT,
    GOAL,
    GOAL_IN,
    GOALS,
    GROUND,
    HOLD_SHARE,
    LAST_ACTION,
    LOWEST,
    NOISE_BIAS,
    NOISE_GRAVITY_BIAS,
    NOISE_SPIN_BIAS,
    NUM_TERMS,
    OLDER_ACTION,
    PUSH,
    PUSH_AGE,
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
    TOTAL,
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
    older = task[OLDER_ACTION * LANES : (OLDER_ACTION + 12) * LANES]
    for i in range(12 * LANES):
        older[i] = last[i]
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
def stay_in_cell(task, work):
    """Re-centre the world on the robot, goal and centre of mass included."""
    for lane in range(LANES):
        for axis in range(2):
            shift = recentre(work, lane, axis)
            task[(GOAL + axis) * LANES + lane] -= shift


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
        total = total_reward(task, lane)
        extra[TOTAL * LANES + lane] = total
        task[RETURN * LANES + lane] += total


@inline
def restart(task, work, extra, constants, model, ranges, noise, seed, clock, number, staggered):
    """Start a new episode where the last one ended: the home pose, disturbed, over its spawn; at a random age if staggered.

    number: of the block's first robot.
    """
    oldest = constants[EPISODE_STEPS] if staggered else real(0.0)
    spread, speed, tilt = constants[RESET_JOINT], constants[RESET_SPEED], constants[RESET_TILT]
    velocity, turn = constants[RESET_VELOCITY], constants[RESET_SPIN]
    zero = real(0.0)
    none = (zero, zero, zero)
    marks = extra[ENDED * LANES : (ENDED + 1) * LANES]
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
        draw_push(task, constants, key, lane, now)
        task[GOAL_IN * LANES + j] = zero if now else task[GOAL_IN * LANES + j]
        task[COMMAND_IN * LANES + j] = zero if now else task[COMMAND_IN * LANES + j]
        task[GOALS * LANES + j] = zero if now else task[GOALS * LANES + j]
    stay_in_cell(task, work)
    clear(task, ACTION, 36, marks)  # and those before it
    clear(task, AIR_TIME, 8, marks)  # and LANDED
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        home = constant3(model.legs[leg], C.HOME)
        for lane in range(LANES):
            key = robot_key(seed, clock, number + lane)
            now = marks[lane] > zero
            draw = DRAW_RESET + 16 + 6 * leg
            q = uniform(key, draw, -spread, spread), uniform(key, draw + 1, -spread, spread), uniform(key, draw + 2, -spread, spread)
            qd = uniform(key, draw + 3, -speed, speed), uniform(key, draw + 4, -speed, speed), uniform(key, draw + 5, -speed, speed)
            choose3(rows, L.JOINT, lane, now, add(home, q))
            choose3(rows, L.JOINT_SPEED, lane, now, qd)
            choose3(rows, L.TARGET, lane, now, home)
            choose3(rows, L.TORQUE, lane, now, none)
    draw_bias(task, noise, marks, seed, clock, number)
    if ranges is not None:
        draw_varied(work, model, ranges, seed, clock, number, marks)


@inline
def clear(task, start, count, marks):
    """Set consecutive rows to 0 where marks (LANES) are above 0."""
    for k in range(count):
        rows = task[(start + k) * LANES : (start + k + 1) * LANES]
        for lane in range(LANES):
            rows[lane] = real(0.0) if marks[lane] > real(0.0) else rows[lane]


@inline
def draw_bias(task, noise, marks, seed, clock, number):
    """Draw the bias of a new episode's sensors."""
    if noise is not None:
        spin, gravity = noise[NOISE_SPIN_BIAS], noise[NOISE_GRAVITY_BIAS]
        for lane in range(LANES):
            key, now = robot_key(seed, clock, number + lane), marks[lane] > real(0.0)
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
        for leg in range(4):
            extra[(FOOT_HEIGHT + leg) * LANES + lane] -= down


@kernel
def control_step(
    blocks, start, stop, work, model, constants, ranges, noise, seed, clock, first_robot, substeps, staggered, actions,
    obs, privileged, final_obs, final_privileged, rewards_out, terminated, truncated, episode_return, episode_steps,
):  # fmt: skip
    """Take the robots of blocks[start:stop] through one control step; with substeps 0, start every episode instead.

    constants: (TASK_CONSTANTS); ranges: vary.pack() or None; noise: (NOISE_CONSTANTS) or None;
    first_robot: number of blocks[0]'s first, by which robots draw; staggered: start at random ages;
    actions: (N, 12). Written: obs (N, NUM_OBS), privileged (N, NUM_PRIVILEGED), the same of the ended
    episodes' last instant in final_*, reward, terminated, truncated (N), return and length of the
    episodes that ended (N).
    """
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        first = b * LANES
        number = first_robot + first
        count = min(LANES, len(actions) - first)
        L.enter(blocks, model, b, work)
        if substeps > 0:
            command(task, work, constants, model, actions, first, count)
            push(task, work, constants, seed, clock, number)
            for s in range(substeps):
                substep(work, model, s == substeps - 1)
            stay_in_cell(task, work)
            feel_ground(task, work, constants)
            measure(task, work, extra, model)
            reward(task, work, extra, constants, model.base)
            end(task, work, extra, constants, model.base)
        else:
            for lane in range(LANES):
                extra[ENDED * LANES + lane] = real(2.0)
        any_ended = False
        for lane in range(count):
            ended = extra[ENDED * LANES + lane]
            any_ended |= ended > real(0.0)
            rewards_out[first + lane] = extra[TOTAL * LANES + lane]
            terminated[first + lane] = ended == real(1.0)
            truncated[first + lane] = ended == real(2.0)
            episode_return[first + lane] = task[RETURN * LANES + lane]
            episode_steps[first + lane] = task[AGE * LANES + lane]
        if any_ended:
            observe(task, work, extra, constants, model, noise, seed, clock, number)
            for lane in range(count):
                if extra[ENDED * LANES + lane] > real(0.0):
                    emit(extra, first + lane, lane, final_obs, final_privileged)
            restart(task, work, extra, constants, model, ranges, noise, seed, clock, number, staggered)
            measure(task, work, extra, model)
            stand_on_ground(task, work, extra)
        new_goals(task, work, extra, constants, model.base, seed, clock, number)
        new_commands(task, work, constants, seed, clock, number)
        observe(task, work, extra, constants, model, noise, seed, clock, number)
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
        reward(task, work, extra, constants, model.base)
        for lane in range(min(LANES, len(out) - first)):
            task[(TERMS + NUM_TERMS - 1) * LANES + lane] = real(0.0)
            out[first + lane] = total_reward(task, lane)
