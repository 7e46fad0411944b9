"""The control step of the quadruped, fused: command, push, physics, reward, end, reset, observation.

One call takes a share of the blocks through all of it without returning to Python. Every stage is a
loop over the lanes of a block without branches; only whether a block has any episode to restart is
asked once per block.
"""

import numpy as np

from environments import rewards
from physics import constants as C
from physics import layout as L
from physics.actuator import keep_command, motor_torque, own_gains
from physics.base import attitude, load_rotation, recentre
from physics.contact import find_patch, look_up, per_metre, surface, upright
from physics.jit import LANES, inline, kernel, real
from physics.layout import choose3, load3, store3, vary
from physics.leg import constant3, foot_in_hip, geometry, link, pose
from physics.mend import put_home
from physics.random import robot_key, uniform
from physics.simulation_step import substep
from physics.spatial import add, dot, rotate, scale, sincos, unrotate, x_rotate
from physics.vary import draw_varied, motor_delay

# Rows that the task keeps of a robot, after the state's
AGE = 0  # control steps since the start of the episode
ACTION = 1  # (12)
LAST_ACTION = 13  # (12)
GOAL = 25  # (3) where the centre of mass should be, x and y from ORIGIN, z above the ground [m]
PUSH_IN, GOAL_IN = 28, 29  # time to the next push and goal [s]
PUSH = 30  # (3) velocity of the latest push, world frame [m/s]
PUSH_AGE = 33  # time since then [s]
RETURN = 34  # sum of rewards of this episode
COM = 35  # (3) centre of mass, as GOAL [m]
SPAWN = 38  # (2) x, y in the world where episodes start [m]
NOISE_BIAS = 40  # (6) of this episode, on the observed angular velocity [rad/s] and direction of gravity
TERMS = 46  # latest reward, term by term, weighted, in the order of config.RewardCfg
NUM_TERMS = 13
TASK_ROWS = TERMS + NUM_TERMS

# Rows of the work buffer, after the physics'
OUT = 0  # observation and privileged observation, to be transposed
NUM_OBS = 37
NUM_PRIVILEGED = 16
FEET = OUT + NUM_OBS + NUM_PRIVILEGED  # (2) middle of the feet, from the base origin [m]
LOWEST = FEET + 2  # lowest point of the feet above the ground [m]
SUMS = FEET + 3  # torque^2, joint speed^2, pose error^2, share of feet in contact, action rate^2
FIRST = SUMS + 5  # (3) first moment of mass, base frame [kg m]
GROUND = FIRST + 3  # height of the ground below the base [m]
ENDED = GROUND + 1  # 1 where the episode ended
TASK_WORK_ROWS = ENDED + 1

# Columns of an observation
OBS_JOINT, OBS_SPEED, OBS_CONTACT, OBS_GRAVITY, OBS_SPIN, OBS_GOAL = 0, 12, 24, 28, 31, 34
SPEED_SCALE = 0.05  # of joint velocities
SPIN_SCALE = 0.25  # of angular velocity
GOAL_SCALE = 5.0  # of the goal
CONTACT_THRESHOLD = 1.0  # [N]

# Constants of the task: quadruped.task_constants()
CONTROL_DT, EPISODE_STEPS, ACTION_SCALE, TORQUE_SCALE, HOLD_SHARE = 0, 1, 2, 3, 4
COS_FALL_TILT, FALL_HEIGHT = 5, 6
RESET_JOINT, RESET_SPEED, RESET_TILT, RESET_VELOCITY, RESET_SPIN = 7, 8, 9, 10, 11
PUSH_SPEED, PUSH_SPIN, PUSH_INTERVAL = 12, 14, 15
GOAL_RADIUS, GOAL_HEIGHT, GOAL_INTERVAL, GOAL_REACH = 17, 18, 19, 21
WEIGHTS = 22
TASK_CONSTANTS = WEIGHTS + NUM_TERMS

# Noise of the observation, uniform +-: quadruped.noise_constants()
NOISE_JOINT, NOISE_SPEED, NOISE_SPIN, NOISE_GRAVITY = 0, 1, 2, 3  # [rad], [rad/s], [rad/s], [1]
NOISE_SPIN_BIAS, NOISE_GRAVITY_BIAS = 4, 5  # [rad/s], [1]
NOISE_CONSTANTS = 6

# Draws of a robot's key, one range per purpose; physics/vary.py draws from 256 on
DRAW_PUSH, DRAW_GOAL, DRAW_RESET, DRAW_AGE, DRAW_BIAS, DRAW_NOISE = 0, 16, 32, 96, 112, 128


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
        foot_ground(work, rows, hip_B, shape, terrain)
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
def foot_ground(work, rows, hip_B, shape, terrain):
    """Look up the terrain under a foot."""
    if terrain is not None:
        heights, (whole, _) = terrain
        cells = per_metre(terrain)
        for lane in range(LANES):
            ((s1, c1), _, _), knee, foot = pose(load3(rows, L.JOINT, lane), shape)
            find_patch(whole, cells, work, L.PATCH, lane, add(hip_B, x_rotate(s1, c1, foot_in_hip(shape, knee, foot))))
        look_up(heights, np.uint32(whole[0]), work, L.PATCH)


@inline
def ground(work, extra, terrain):
    """Set GROUND to the height of the ground below the base."""
    cells = per_metre(terrain)
    zero = real(0.0)
    origin = (zero, zero, zero)
    base_ground(work, terrain, cells, origin)
    for lane in range(LANES):
        if terrain is None:
            extra[GROUND * LANES + lane] = zero
        else:
            i = L.PATCH * LANES + lane
            h00, h10, h01, h11 = work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]
            low, high = h00 + work[i + 4 * LANES] * (h10 - h00), h01 + work[i + 4 * LANES] * (h11 - h01)
            extra[GROUND * LANES + lane] = low + work[i + 5 * LANES] * (high - low)


@inline
def base_ground(work, terrain, cells, point):
    """Look up the terrain under a point (3) of the base."""
    if terrain is not None:
        heights, (whole, _) = terrain
        for lane in range(LANES):
            find_patch(whole, cells, work, L.PATCH, lane, point)
        look_up(heights, np.uint32(whole[0]), work, L.PATCH)


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
def stand_on_ground(work, extra):
    """Lift or lower the robots that start anew until their lowest foot touches the ground."""
    for lane in range(LANES):
        i = (L.POSITION + 2) * LANES + lane
        work[i] = work[i] - extra[LOWEST * LANES + lane] if extra[ENDED * LANES + lane] > real(0.0) else work[i]


@inline
def noisy3(noise, kind, key, draw, v):
    """Return a measured vector (3), with noise where there is any."""
    if noise is None:
        return v
    n = noise[kind]
    return v[0] + uniform(key, draw, -n, n), v[1] + uniform(key, draw + 1, -n, n), v[2] + uniform(key, draw + 2, -n, n)


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
        draw = DRAW_NOISE + 6 * leg
        joint = extra[(OBS_JOINT + 3 * leg) * LANES : (OBS_JOINT + 3 * leg + 3) * LANES]
        speed = extra[(OBS_SPEED + 3 * leg) * LANES : (OBS_SPEED + 3 * leg + 3) * LANES]
        contact = extra[(OBS_CONTACT + leg) * LANES : (OBS_CONTACT + leg + 1) * LANES]
        for lane in range(LANES):
            key = robot_key(seed, clock, first + lane)
            q, qd = offset3(varied, rows, lane, load3(rows, L.JOINT, lane)), load3(rows, L.JOINT_SPEED, lane)
            store3(joint, 0, lane, add(noisy3(noise, NOISE_JOINT, key, draw, q), scale(real(-1.0), home)))
            store3(speed, 0, lane, scale(real(SPEED_SCALE), noisy3(noise, NOISE_SPEED, key, draw + 3, qd)))
            force = load3(rows, L.FORCE, lane)
            contact[lane] = real(1.0) if dot(force, force) > real(CONTACT_THRESHOLD**2) else real(0.0)
    for lane in range(LANES):
        r = load_rotation(work, lane)
        key = robot_key(seed, clock, first + lane)
        down = biased3(noise, task, 3, lane, (-r[6], -r[7], -r[8]))
        spin = biased3(noise, task, 0, lane, load3(work, L.SPIN, lane))
        store3(extra, OBS_GRAVITY, lane, noisy3(noise, NOISE_GRAVITY, key, DRAW_NOISE + 24, down))
        store3(extra, OBS_SPIN, lane, scale(real(SPIN_SCALE), noisy3(noise, NOISE_SPIN, key, DRAW_NOISE + 27, spin)))
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
def emit(extra, first, count, obs, privileged):
    """Write observations out, one row per robot; what is not finite becomes 0."""
    for lane in range(count):
        for k in range(NUM_OBS):
            x = extra[(OUT + k) * LANES + lane]
            obs[first + lane, k] = x if abs(x) < real(1e3) else real(0.0)
        for k in range(NUM_PRIVILEGED):
            x = extra[(OUT + NUM_OBS + k) * LANES + lane]
            privileged[first + lane, k] = x if abs(x) < real(1e3) else real(0.0)


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
        # at most: the end of an episode, and its successor's start twice, before and after it is put on the ground
        for phase in range(3 if any_ended else 1):
            if phase > 0:
                if phase == 1:
                    restart(task, work, extra, constants, model, ranges, noise, seed, clock, first, staggered)
                else:
                    stand_on_ground(work, extra)
                measure(task, work, extra, model)
            last = phase == 2 or not any_ended
            if last:
                new_goals(task, work, extra, constants, model.base, seed, clock, first)
            if phase != 1:
                observe(task, work, extra, constants, model, noise, seed, clock, first)
            if last:
                emit(extra, first, count, obs, privileged)
            elif phase == 0:
                emit(extra, first, count, final_obs, final_privileged)
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
