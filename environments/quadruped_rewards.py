"""The reward of a quadruped's control step: the terms of environments/rewards.py, weighted, and their sum."""

from environments import rewards
from environments.quadruped_rows import (
    ACTION_SUMS,
    AIR_TIME,
    ARRIVED,
    AT_GOAL,
    COM,
    COMMAND,
    CONTACT_THRESHOLD,
    CONTROL_DT,
    FOOT_SUMS,
    GOAL,
    GROUND,
    LANDED,
    NUM_TERMS,
    ON_GROUND,
    SHARP,
    SUMS,
    TERMS,
    WEIGHTS,
    WIDE,
)
from environments.quadruped_senses import from_heading
from physics import constants as C
from physics import layout as L
from physics.jit import LANES, inline, real
from physics.layout import load3, store3
from physics.leg import constant3
from physics.spatial import add, dot, scale


@inline
def feel_ground(task, work, constants):
    """Count how long each foot has been in the air, and mark those that touch down at this instant."""
    dt = constants[CONTROL_DT]
    zero = real(0.0)
    for leg in range(4):
        rows = L.leg_rows(work, leg)
        air, landed = task[(AIR_TIME + leg) * LANES : (AIR_TIME + leg + 1) * LANES], task[(LANDED + leg) * LANES : (LANDED + leg + 1) * LANES]
        for lane in range(LANES):
            force = load3(rows, L.FORCE, lane)
            touches = dot(force, force) > real(CONTACT_THRESHOLD**2)
            flight = air[lane]
            landed[lane] = flight if touches else zero
            air[lane] = zero if touches else flight + dt


@inline
def reward(task, work, extra, constants, base):
    """Set the weighted reward terms of this instant, per control step, all but the fall's."""
    dt, sharp, wide, home = constants[CONTROL_DT], constants[SHARP], constants[WIDE], base[C.HOME_HEIGHT]
    (w0, w1, w2), (w3, w4, w5) = constant3(constants, WEIGHTS), constant3(constants, WEIGHTS + 3)
    (w6, w7, w8), (w9, w10, w11) = constant3(constants, WEIGHTS + 6), constant3(constants, WEIGHTS + 9)
    (w12, w13, w14), (w15, w16, w17) = constant3(constants, WEIGHTS + 12), constant3(constants, WEIGHTS + 15)
    w18, w19, w20 = constant3(constants, WEIGHTS + 18)
    one = real(1.0)
    for lane in range(LANES):
        v, spin, up = load3(work, L.VELOCITY, lane), load3(work, L.SPIN, lane), load3(work, L.ROTATION + 6, lane)
        offset = add(load3(task, GOAL, lane), scale(real(-1.0), load3(task, COM, lane)))
        x, y, turn = load3(task, COMMAND, lane)
        desired = from_heading(work, lane, x, y)
        above = work[(L.POSITION + 2) * LANES + lane] - extra[GROUND * LANES + lane]
        near, moves, turns = rewards.goal(offset), rewards.velocity(v, desired, sharp, wide), rewards.yaw_rate(spin, turn, sharp, wide)
        store3(task, TERMS, lane, scale(dt, (w0 * near, w1 * moves, w2 * turns)))
        store3(task, TERMS + 3, lane, scale(dt, (w3 * rewards.vertical_velocity(v), w4 * rewards.tumble(spin), w5 * rewards.orientation(up))))
        task[(TERMS + 6) * LANES + lane] = dt * (w6 * rewards.height(above, home))
    for lane in range(LANES):
        torque2, speed2, pose2 = load3(extra, SUMS, lane)
        knee2 = extra[(SUMS + 3) * LANES + lane]
        rate2, bend2 = extra[ACTION_SUMS * LANES + lane], extra[(ACTION_SUMS + 1) * LANES + lane]
        feet, slip2 = extra[FOOT_SUMS * LANES + lane], extra[(FOOT_SUMS + 1) * LANES + lane]
        x, y, turn = load3(task, COMMAND, lane)
        moving = one if x * x + y * y + turn * turn > real(0.0) else real(0.0)
        i = ON_GROUND * LANES + lane
        pairs = rewards.trot((extra[i], extra[i + LANES], extra[i + 2 * LANES], extra[i + 3 * LANES]), moving)
        j = LANDED * LANES + lane
        flights = rewards.air_time(task[j], moving) + rewards.air_time(task[j + LANES], moving)
        flights += rewards.air_time(task[j + 2 * LANES], moving) + rewards.air_time(task[j + 3 * LANES], moving)
        store3(task, TERMS + 7, lane, scale(dt, (w7 * torque2, w8 * rate2, w9 * bend2)))
        store3(task, TERMS + 10, lane, scale(dt, (w10 * pose2, w11 * rewards.stand_pose(pose2, moving), w12 * knee2)))
        store3(task, TERMS + 13, lane, scale(dt, (w13 * speed2, w14 * feet, w15 * slip2)))
        store3(task, TERMS + 16, lane, (dt * (w16 * pairs), dt * w17, w18 * flights))
        stops = rewards.stopping(task[AT_GOAL * LANES + lane], load3(work, L.VELOCITY, lane), load3(work, L.SPIN, lane))
        task[(TERMS + 19) * LANES + lane] = w19 * task[ARRIVED * LANES + lane]
        task[(TERMS + 20) * LANES + lane] = dt * (w20 * stops)


@inline
def total_reward(task, lane):
    """Return the sum of the terms, not below 0, less the fall's."""
    total = real(0.0)
    for k in range(NUM_TERMS - 1):
        total += task[(TERMS + k) * LANES + lane]
    return max(total, real(0.0)) + task[(TERMS + NUM_TERMS - 1) * LANES + lane]
